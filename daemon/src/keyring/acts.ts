/** What the agent does with a key by itself, nobody asking. */
export interface AgentAct {
  /** `drop`: its unlockLifetime is over. */
  readonly act: 'rotate' | 'destroy' | 'expire' | 'budget' | 'create' | 'drop';
  readonly keyId: string;
  readonly keyVersionId?: string;
}
