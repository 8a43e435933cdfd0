/*
 * A PKCS#11 module that stands before another one, counts, and fails on schedule. Built by the tests.
 * KMS_FAULT_REAL: path of the module behind it. KMS_FAULT_PLAN: a file of 512 bytes. The first 256 are read before each call:
 *   "<functions> <what> <every>"  functions: names with commas between, or *; what: a CKR in hexadecimal, hang, hold (until the
 *   plan says otherwise), crash, flip (C_Sign alone: answers CKR_OK, with one bit of the signature wrong), or slow and milliseconds; every: 1 for each call, or x and a pattern of 0 and 1 that repeats.
 * An empty plan lets everything through. The rest are the counts, see enum below.
 * KMS_FAULT_MAX_SESSIONS: sessions that the token has. KMS_FAULT_FOREIGN_SLOT: a slot whose token is not initialized cannot be read.
 * KMS_FAULT_OTHER_PIN: where the plan has C_Login answer CKR_USER_ALREADY_LOGGED_IN, another program is logged in with this one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CK_PTR *
#define CK_DEFINE_FUNCTION(returnType, name) returnType name
#define CK_DECLARE_FUNCTION(returnType, name) returnType name
#define CK_DECLARE_FUNCTION_POINTER(returnType, name) returnType(*name)
#define CK_CALLBACK_FUNCTION(returnType, name) returnType(*name)
#ifndef NULL_PTR
#define NULL_PTR 0
#endif
#include "pkcs11.h"

enum { plan_bytes = 256, file_bytes = 512 };
/* No return value of a module. */
enum { flipped = 0x7fffffff };
enum { count_logins, count_sessions, count_peak, count_held, added_flags };
static CK_FUNCTION_LIST_PTR real;
static CK_FUNCTION_LIST mine;
static const char *plan;
/* Of all processes that have the module: logins, and calls that were held. Of the last one: sessions that are open, and the most that were. Then flags that the token is said to have. */
static atomic_uint *counts;
static atomic_uint calls;
static unsigned max_sessions;

static int names(const char *list, const char *function) {
  if (strcmp(list, "*") == 0) return 1;
  char copy[plan_bytes];
  strcpy(copy, list);
  for (char *rest = copy, *name; (name = strtok_r(rest, ",", &rest));)
    if (strcmp(name, function) == 0) return 1;
  return 0;
}

/* Waits for as long as the plan says hold. */
static void hold(void) {
  char list[plan_bytes], what[32];
  do {
    char copy[plan_bytes + 1];
    usleep(1000);
    memcpy(copy, plan, plan_bytes);
    copy[plan_bytes] = 0;
    if (sscanf(copy, "%255s %31s", list, what) != 2) return;
  } while (strcmp(what, "hold") == 0);
}

/* Whether it is this call's turn. */
static int is_due(const char *every) {
  unsigned call = atomic_fetch_add(&calls, 1);
  if (every[0] == 'x') return every[1 + call % strlen(every + 1)] == '1';
  unsigned number = strtoul(every, NULL, 10);
  return number > 0 && call % number == number - 1;
}

/* What the plan says of a call. */
static CK_RV fault(const char *function) {
  char copy[plan_bytes + 1], list[plan_bytes], what[32], every[32];
  memcpy(copy, plan, plan_bytes);
  copy[plan_bytes] = 0;
  if (sscanf(copy, "%255s %31s %31s", list, what, every) != 3) return CKR_OK;
  if (!names(list, function) || !is_due(every)) return CKR_OK;
  if (strncmp(what, "slow", 4) == 0) {
    usleep(1000 * strtoul(what + 4, NULL, 10));
    return CKR_OK;
  }
  if (strcmp(what, "hang") == 0)
    for (;;) pause();
  if (strcmp(what, "hold") == 0) {
    atomic_fetch_add(&counts[count_held], 1);
    hold();
    return CKR_OK;
  }
  if (strcmp(what, "crash") == 0) {
    signal(SIGSEGV, SIG_DFL);
    kill(getpid(), SIGSEGV);
    for (;;) pause();
  }
  return strcmp(what, "flip") == 0 ? flipped : strtoul(what, NULL, 16);
}

#define WRAP(name, parameters, arguments)    \
  static CK_RV fault_##name parameters {     \
    CK_RV rv = fault(#name);                 \
    return rv == CKR_OK ? real->name arguments : rv; \
  }

#define S CK_SESSION_HANDLE s
#define O CK_OBJECT_HANDLE
#define M CK_MECHANISM_PTR m
#define B CK_BYTE_PTR
#define L CK_ULONG
#define P CK_ULONG_PTR
#define A CK_ATTRIBUTE_PTR

WRAP(C_Initialize, (CK_VOID_PTR a), (a))
WRAP(C_GetSlotList, (CK_BBOOL p, CK_SLOT_ID_PTR l, P n), (p, l, n))
WRAP(C_GetSessionInfo, (S, CK_SESSION_INFO_PTR i), (s, i))
WRAP(C_FindObjectsInit, (S, A t, L n), (s, t, n))
WRAP(C_FindObjects, (S, CK_OBJECT_HANDLE_PTR o, L n, P c), (s, o, n, c))
WRAP(C_GetAttributeValue, (S, O o, A t, L n), (s, o, t, n))
WRAP(C_GenerateKey, (S, M, A t, L n, CK_OBJECT_HANDLE_PTR k), (s, m, t, n, k))
WRAP(C_GenerateKeyPair, (S, M, A t, L n, A u, L o, CK_OBJECT_HANDLE_PTR k, CK_OBJECT_HANDLE_PTR l), (s, m, t, n, u, o, k, l))
WRAP(C_EncryptInit, (S, M, O k), (s, m, k))
WRAP(C_Encrypt, (S, B d, L n, B e, P l), (s, d, n, e, l))
WRAP(C_DecryptInit, (S, M, O k), (s, m, k))
WRAP(C_Decrypt, (S, B e, L n, B d, P l), (s, e, n, d, l))
WRAP(C_SignInit, (S, M, O k), (s, m, k))
WRAP(C_CreateObject, (S, A t, L n, CK_OBJECT_HANDLE_PTR o), (s, t, n, o))
WRAP(C_DestroyObject, (S, O o), (s, o))
WRAP(C_UnwrapKey, (S, M, O w, B d, L n, A t, L c, CK_OBJECT_HANDLE_PTR k), (s, m, w, d, n, t, c, k))
WRAP(C_WrapKey, (S, M, O w, O k, B d, P n), (s, m, w, k, d, n))
WRAP(C_GenerateRandom, (S, B d, L n), (s, d, n))
WRAP(C_GetMechanismList, (CK_SLOT_ID i, CK_MECHANISM_TYPE_PTR l, P n), (i, l, n))
WRAP(C_GetMechanismInfo, (CK_SLOT_ID i, CK_MECHANISM_TYPE m, CK_MECHANISM_INFO_PTR o), (i, m, o))
WRAP(C_FindObjectsFinal, (S), (s))

static CK_RV fault_C_Sign(S, B d, L n, B g, P l) {
  CK_RV rv = fault("C_Sign");
  if (rv != CKR_OK && rv != flipped) return rv;
  CK_RV signed_ = real->C_Sign(s, d, n, g, l);
  if (rv == flipped && signed_ == CKR_OK && g) g[20] ^= 1;
  return signed_;
}

static CK_RV fault_C_GetTokenInfo(CK_SLOT_ID i, CK_TOKEN_INFO_PTR t) {
  CK_RV rv = fault("C_GetTokenInfo");
  if (rv == CKR_OK) rv = real->C_GetTokenInfo(i, t);
  if (rv == CKR_OK) t->flags |= counts[added_flags];
  return rv == CKR_OK && !(t->flags & CKF_TOKEN_INITIALIZED) && getenv("KMS_FAULT_FOREIGN_SLOT") ? CKR_TOKEN_NOT_RECOGNIZED : rv;
}

static CK_RV fault_C_Login(S, CK_USER_TYPE u, B p, L n) {
  atomic_fetch_add(&counts[count_logins], 1);
  CK_RV rv = fault("C_Login");
  const char *other = getenv("KMS_FAULT_OTHER_PIN");
  if (rv == CKR_USER_ALREADY_LOGGED_IN && other) real->C_Login(s, u, (CK_UTF8CHAR_PTR)other, strlen(other));
  return rv == CKR_OK ? real->C_Login(s, u, p, n) : rv;
}

static CK_RV fault_C_OpenSession(CK_SLOT_ID i, CK_FLAGS f, CK_VOID_PTR a, CK_NOTIFY n, CK_SESSION_HANDLE_PTR s) {
  CK_RV rv = fault("C_OpenSession");
  if (rv == CKR_OK && max_sessions && counts[count_sessions] >= max_sessions) rv = CKR_SESSION_COUNT;
  if (rv == CKR_OK) rv = real->C_OpenSession(i, f, a, n, s);
  if (rv != CKR_OK) return rv;
  unsigned now = atomic_fetch_add(&counts[count_sessions], 1) + 1;
  if (now > counts[count_peak]) counts[count_peak] = now;
  return rv;
}

static CK_RV fault_C_CloseSession(S) {
  CK_RV rv = fault("C_CloseSession");
  if (rv == CKR_OK) rv = real->C_CloseSession(s);
  if (rv == CKR_OK) atomic_fetch_sub(&counts[count_sessions], 1);
  return rv;
}

static CK_RV fault_C_Finalize(CK_VOID_PTR a) {
  CK_RV rv = fault("C_Finalize");
  if (rv != CKR_OK) return rv;
  counts[count_sessions] = 0;
  return real->C_Finalize(a);
}

static CK_RV open_plan(void) {
  const char *path = getenv("KMS_FAULT_PLAN");
  int fd = path ? open(path, O_RDWR) : -1;
  if (fd < 0) return CKR_GENERAL_ERROR;
  void *file = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (file == MAP_FAILED) return CKR_HOST_MEMORY;
  plan = file;
  counts = (atomic_uint *)((char *)file + plan_bytes);
  counts[count_sessions] = 0;
  const char *max = getenv("KMS_FAULT_MAX_SESSIONS");
  max_sessions = max ? strtoul(max, NULL, 10) : 0;
  return CKR_OK;
}

#define USE(name) mine.name = fault_##name

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
  if (!real) {
    const char *path = getenv("KMS_FAULT_REAL");
    void *module = path ? dlopen(path, RTLD_NOW) : NULL;
    CK_C_GetFunctionList get = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    if (!get || get(&real) != CKR_OK || open_plan() != CKR_OK) return CKR_GENERAL_ERROR;
    mine = *real;
    USE(C_Initialize), USE(C_GetSlotList), USE(C_GetTokenInfo), USE(C_OpenSession), USE(C_CloseSession), USE(C_GetSessionInfo);
    USE(C_Login), USE(C_Finalize);
    USE(C_FindObjectsInit), USE(C_FindObjects), USE(C_GetAttributeValue), USE(C_GenerateKey), USE(C_GenerateKeyPair);
    USE(C_EncryptInit), USE(C_Encrypt), USE(C_DecryptInit), USE(C_Decrypt), USE(C_SignInit), USE(C_Sign);
    USE(C_CreateObject), USE(C_DestroyObject), USE(C_UnwrapKey), USE(C_WrapKey), USE(C_GenerateRandom);
    USE(C_GetMechanismList), USE(C_GetMechanismInfo), USE(C_FindObjectsFinal);
  }
  *list = &mine;
  return CKR_OK;
}
