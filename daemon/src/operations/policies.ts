import {
  AgentError,
  type ErrorCode,
  type ExplainedCaller,
  type ExplainParams,
  type ExplainResult,
  isAgentError,
  isMethodName,
  type MethodName,
} from '@kms-agent/protocol';
import { type Caller, type FileId, serviceOf, type Unit, type Unknown } from '../caller/identity.ts';
import { identifyFile } from '../caller/process.ts';
import { forecast } from '../keyring/forecast.ts';
import type { Key } from '../keyring/key.ts';
import type { Keyring } from '../keyring/keyring.ts';
import type { Authority, Verdict } from './authority.ts';
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
    connection: 0,
    groups,
    process: { unit: () => (unit === undefined ? undefined : parseUnitName(unit)), executable: () => executable, executablePath: () => exe, seen: () => ({}) },
  };
}

const movesAlias: ReadonlySet<MethodName> = new Set(['updateAlias', 'deleteAlias']);

/** Parameters that name a key, and an alias that is moved: all that a policy looks at. @throws AgentError `ERR_INVALID_PARAMS`. */
function paramsFor(method: MethodName, { keyId, aliasName }: Omit<ExplainParams, 'method'>): Record<string, unknown> {
  if (movesAlias.has(method) !== (aliasName !== undefined)) {
    const reason = aliasName === undefined ? 'must be given: the key that it stands for counts too' : 'goes with updateAlias and deleteAlias only';
    throw new AgentError('ERR_INVALID_PARAMS', { path: '/aliasName', reason });
  }
  const named = { ...(keyId === undefined ? {} : { keyId }), ...(aliasName === undefined ? {} : { aliasName }) };
  return method === 'reEncrypt' ? { ...named, destinationKeyId: keyId ?? '', ciphertextBlob: new Uint8Array() } : named;
}

const agentMethodsThatTakeKeys: ReadonlySet<MethodName> = new Set(['listAliases', 'explain']);

/** A call that is asked about. */
interface Asked {
  readonly subject: Caller;
  readonly method: MethodName;
  readonly keyId?: string;
  readonly aliasName?: string;
  /** Whose policies decide. */
  readonly keys: ReturnType<Authority['keysFor']>;
  /** The key that it works with: the one that is named, else the one that it finds. */
  readonly key: Key | undefined;
}

/** Methods that find a key for who names none. */
const takesDefault: ReadonlySet<MethodName> = new Set([
  'encrypt',
  'advanceEncrypt',
  'generateDataKey',
  'advanceGenerateDataKey',
  'generateDataKeyWithoutPlaintext',
]);

/** The key of a call that names none. */
function findOwn(method: MethodName, [key]: Asked['keys']): Key | undefined {
  return key !== 'own' && (takesDefault.has(method) || movesAlias.has(method)) ? key : undefined;
}

/** What a call asks that names no key, where there is none that it could find. What a ciphertext names, nobody knows here. @throws AgentError `ERR_ACCESS_DENIED`, `ERR_KEY_NOT_FOUND`. */
function requireKey(keyring: Keyring, subject: Caller, method: MethodName): ErrorCode | undefined {
  if (!takesDefault.has(method)) return method === 'advanceDecrypt' ? undefined : 'ERR_INVALID_PARAMS';
  if (serviceOf(subject) === 'unknown') return 'ERR_ACCESS_DENIED';
  keyring.resolve(undefined);
  return undefined;
}

const denial: ExplainResult = { allowed: false, rule: 'noStatement', wouldSucceed: false, blockedBy: 'ERR_ACCESS_DENIED' };

/** Who may do what: a key's policy, and why a call would be allowed or not. */
export function policyOperations({ agent, authority }: OperationsContext): Pick<Handlers, 'getKeyPolicy' | 'setKeyPolicy' | 'explain'> {
  /** Asks what the call would ask, in its order. @returns the code of what is in its way, or throws it. */
  const tryPath = ({ subject, method, keys, key, keyId, aliasName = '' }: Asked): ErrorCode | undefined => {
    if (keys.length === 0 && keyId === undefined) return undefined;
    const { keyring, aliases } = agent.open;
    if (method === 'deleteAlias') aliases.checkDelete(aliasName);
    else if (method === 'updateAlias') aliases.checkUpdate(aliasName, key?.keyId ?? keyId ?? '');
    else if (key) return forecast(agent.open, key, method);
    else if (keyId === undefined) return keys.includes('own') ? undefined : requireKey(keyring, subject, method);
    else if (!agentMethodsThatTakeKeys.has(method)) keyring.resolve(keyId);
    return undefined;
  };

  /** What keeps an allowed call from its end, as far as it can be known without making it. */
  const findBlock = (asked: Asked): ErrorCode | undefined => {
    try {
      return tryPath(asked);
    } catch (error) {
      if (isAgentError(error)) return error.code;
      throw error;
    }
  };

  const findKey = (keyId: string): Key | undefined => {
    try {
      return agent.open.keyring.resolve(keyId);
    } catch (error) {
      if (isAgentError(error, 'ERR_KEY_NOT_FOUND', 'ERR_ALIAS_NOT_FOUND')) return undefined;
      throw error;
    }
  };

  const mayDo = (asking: Caller, keys: Asked['keys'], test: (key: Key) => boolean): boolean =>
    authority.isAdministrator(asking) || (keys.length > 0 && keys.every((key) => key !== undefined && key !== 'own' && test(key)));

  /**
   * Why is told to who may read the policy of each key that decides; to others a denial is a denial, so that nobody can probe. What somebody else may do with a key is
   * told to who may know of the key, and of any other a denial, as of one that is not there.
   */
  const tell = (
    asking: Caller,
    { allowed, rule, sid, statementIndex, limit }: Verdict,
    { subject, keys }: Asked,
    block: () => ErrorCode | undefined,
  ): ExplainResult => {
    const isHidden = subject !== asking && (keys.length > 0 || rule === 'administrator');
    if (isHidden && !mayDo(asking, keys, (key) => authority.mayDescribe(asking, key))) return denial;
    const maySee = allowed || limit !== undefined || mayDo(asking, keys, ({ keyId }) => authority.judge(asking, 'getKeyPolicy', { keyId }).allowed);
    if (!maySee) return denial;
    const isAboutKey = rule === 'keyPolicy' || rule === 'administrator'; // else the key is beside the matter, and whether it is there is not said
    const blockedBy = allowed ? (isAboutKey ? block() : undefined) : (limit?.code ?? 'ERR_ACCESS_DENIED');
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
    explain: (caller, params) => {
      const { caller: asked, method, keyId } = params;
      if (!isMethodName(method)) throw new AgentError('ERR_INVALID_PARAMS', { path: '/method', reason: 'is no method; rpc.discover lists them' });
      const subject = asked ? imagine(asked) : caller;
      const named = paramsFor(method, params) as never; // a policy looks at the key alone
      const verdict = authority.judge(subject, method, named);
      const keys = authority.keysFor(subject, method, named);
      const key = keyId === undefined ? findOwn(method, keys) : findKey(keyId);
      const about: Asked = { ...params, subject, method, keys, key };
      return tell(caller, verdict, about, () => findBlock(about));
    },
  };
}
