import { AgentError, type ExplainedCaller, type ExplainResult, isAgentError, isMethodName, type MethodName } from '@kms-agent/protocol';
import type { Caller, FileId, Unit, Unknown } from '../caller/identity.ts';
import { identifyFile } from '../caller/process.ts';
import { forecast } from '../keyring/forecast.ts';
import type { Key } from '../keyring/key.ts';
import type { Verdict } from './authority.ts';
import type { Handlers, OperationsContext } from './index.ts';

/** An id that no user and no group has. */
const nobody = -1;

function parseUnitName(text: string): Unit {
  const own = text.startsWith('user-unit:');
  return own ? { scope: 'user', name: text.slice('user-unit:'.length) } : { scope: 'system', name: text.replace(/^unit:/, '') };
}

function findExecutable(path: string | undefined): FileId | Unknown {
  if (path === undefined) return 'unknown';
  try {
    return identifyFile(path);
  } catch (cause) {
    throw new AgentError('ERR_INVALID_PARAMS', { path: '/caller/exe', reason: 'must be the path of a file that the agent can see' }, { cause });
  }
}

/** A caller of whom only so much is known. */
function imagine({ uid = nobody, groups = [], unit, exe }: ExplainedCaller): Caller {
  const executable = findExecutable(exe);
  return {
    uid,
    gid: nobody,
    groups,
    process: { unit: () => (unit === undefined ? undefined : parseUnitName(unit)), executable: () => executable, executablePath: () => exe, seen: () => ({}) },
  };
}

/** Parameters that name a key and nothing else: all that a policy looks at. */
function paramsFor(method: MethodName, keyId: string | undefined): Record<string, unknown> {
  const named = keyId === undefined ? {} : { keyId };
  return method === 'reEncrypt' ? { ...named, destinationKeyId: keyId ?? '', ciphertextBlob: new Uint8Array() } : named;
}

const agentMethodsThatTakeKeys: ReadonlySet<MethodName> = new Set(['listAliases', 'explain']);

/** Who may do what: a key's policy, and why a call would be allowed or not. */
export function policyOperations({ agent, authority }: OperationsContext): Pick<Handlers, 'getKeyPolicy' | 'setKeyPolicy' | 'explain'> {
  /** What keeps an allowed call from its end, as far as it can be known without making it. */
  const findBlock = (method: MethodName, key: Key | undefined, keyId: string | undefined): string | undefined => {
    try {
      if (key) return forecast(agent.open, key, method);
      if (keyId !== undefined && !agentMethodsThatTakeKeys.has(method)) agent.open.keyring.resolve(keyId);
      return undefined;
    } catch (error) {
      if (isAgentError(error)) return error.code;
      throw error;
    }
  };

  const findKey = (keyId: string | undefined): Key | undefined => {
    try {
      return keyId === undefined ? undefined : agent.open.keyring.resolve(keyId);
    } catch (error) {
      if (isAgentError(error, 'ERR_KEY_NOT_FOUND', 'ERR_ALIAS_NOT_FOUND')) return undefined;
      throw error;
    }
  };

  /** Why is told to who may read the policy; to others a denial is a denial, so that nobody can probe. */
  const tell = (
    asking: Caller,
    { allowed, rule, sid, statementIndex, limit }: Verdict,
    key: Key | undefined,
    block: () => string | undefined,
  ): ExplainResult => {
    const maySee = authority.isAdministrator(asking) || allowed || (key !== undefined && authority.judge(asking, 'getKeyPolicy', { keyId: key.keyId }).allowed);
    if (!allowed && !limit && !maySee) return { allowed, rule: 'noStatement', wouldSucceed: false, blockedBy: 'ERR_ACCESS_DENIED' };
    const blockedBy = allowed ? block() : (limit?.code ?? 'ERR_ACCESS_DENIED');
    return {
      allowed,
      rule,
      ...(sid === undefined ? {} : { sid }),
      ...(statementIndex === undefined ? {} : { statementIndex }),
      wouldSucceed: blockedBy === undefined,
      ...(blockedBy === undefined ? {} : { blockedBy }),
    };
  };

  return {
    getKeyPolicy: (_caller, { keyId }) => {
      const key = agent.open.keyring.resolve(keyId);
      return { keyId: key.keyId, ...authority.policyOf(key) };
    },
    setKeyPolicy: (_caller, { keyId, policy: asked }) => {
      const { keyring, life } = agent.open;
      const key = keyring.keyById(keyId);
      const { policy, warnings } = authority.prepare(asked);
      return { keyId, ...authority.policyOf(life.setPolicy(key, policy)), ...(warnings.length > 0 ? { warnings } : {}) };
    },
    explain: (caller, { caller: asked, method, keyId }) => {
      if (!isMethodName(method)) throw new AgentError('ERR_INVALID_PARAMS', { path: '/method', reason: 'is no method; rpc.discover lists them' });
      const subject = asked ? imagine(asked) : caller;
      const verdict = authority.judge(subject, method, paramsFor(method, keyId) as never); // a policy looks at the key alone
      const key = findKey(keyId);
      return tell(caller, verdict, key, () => findBlock(method, key, keyId));
    },
  };
}
