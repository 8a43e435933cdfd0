/** What the agent does with a key by itself, nobody asking. */
export interface AgentAct {
  readonly act: 'rotate' | 'destroy' | 'expire' | 'budget' | 'create';
  readonly keyId: string;
  readonly keyVersionId?: string;
}
