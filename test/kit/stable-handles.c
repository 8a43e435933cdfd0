/*
 * A PKCS#11 module before SoftHSM whose handle of a token object is its place, found by class and CKA_ID: it stays valid when another object
 * takes that place, as with modules that number handles by the object's slot. Built by the tests.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CK_PTR *
#define CK_DEFINE_FUNCTION(returnType, name) returnType name
#define CK_DECLARE_FUNCTION(returnType, name) returnType name
#define CK_DECLARE_FUNCTION_POINTER(returnType, name) returnType(*name)
#define CK_CALLBACK_FUNCTION(returnType, name) returnType(*name)
#ifndef NULL_PTR
#define NULL_PTR 0
#endif
#include "pkcs11.h"

enum { id_bytes = 16, max_places = 4096, first_place = 0x100000 };
static CK_FUNCTION_LIST_PTR real;
static CK_FUNCTION_LIST mine;
static struct {
  CK_BYTE id[id_bytes];
  CK_ULONG class;
} places[max_places];
static CK_ULONG used;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* The place of an object of SoftHSM's, as its handle. */
static CK_OBJECT_HANDLE place_of(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object) {
  CK_BYTE id[64];
  CK_ULONG class = 0;
  CK_BBOOL is_token = CK_FALSE;
  CK_ATTRIBUTE asked[] = {{CKA_ID, id, sizeof id}, {CKA_CLASS, &class, sizeof class}, {CKA_TOKEN, &is_token, sizeof is_token}};
  if (real->C_GetAttributeValue(session, object, asked, 3) != CKR_OK || asked[0].ulValueLen != id_bytes || !is_token) return object;
  pthread_mutex_lock(&mutex);
  CK_ULONG place = 0;
  while (place < used && (places[place].class != class || memcmp(places[place].id, id, id_bytes) != 0)) place++;
  if (place == used && used++ < max_places) {
    memcpy(places[place].id, id, id_bytes);
    places[place].class = class;
  }
  pthread_mutex_unlock(&mutex);
  return first_place + place;
}

/* SoftHSM's handle of what is at a place now. */
static CK_OBJECT_HANDLE object_at(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE place) {
  if (place < first_place) return place;
  CK_SESSION_INFO info;
  CK_SESSION_HANDLE searching;
  CK_OBJECT_HANDLE found = 0;
  CK_ULONG count = 0;
  if (real->C_GetSessionInfo(session, &info) != CKR_OK) return 0;
  if (real->C_OpenSession(info.slotID, CKF_SERIAL_SESSION, NULL, NULL, &searching) != CKR_OK) return 0;
  CK_ATTRIBUTE wanted[] = {{CKA_ID, places[place - first_place].id, id_bytes}, {CKA_CLASS, &places[place - first_place].class, sizeof(CK_ULONG)}};
  real->C_FindObjectsInit(searching, wanted, 2);
  real->C_FindObjects(searching, &found, 1, &count);
  real->C_FindObjectsFinal(searching);
  real->C_CloseSession(searching);
  return count ? found : 0;
}

#define S CK_SESSION_HANDLE s
#define O CK_OBJECT_HANDLE o
#define M CK_MECHANISM_PTR m

static CK_RV stable_C_FindObjects(S, CK_OBJECT_HANDLE_PTR found, CK_ULONG max, CK_ULONG_PTR count) {
  CK_RV rv = real->C_FindObjects(s, found, max, count);
  if (rv == CKR_OK)
    for (CK_ULONG index = 0; index < *count; index++) found[index] = place_of(s, found[index]);
  return rv;
}
static CK_RV stable_C_GetAttributeValue(S, O, CK_ATTRIBUTE_PTR a, CK_ULONG n) { return real->C_GetAttributeValue(s, object_at(s, o), a, n); }
static CK_RV stable_C_DestroyObject(S, O) { return real->C_DestroyObject(s, object_at(s, o)); }
static CK_RV stable_C_EncryptInit(S, M, O) { return real->C_EncryptInit(s, m, object_at(s, o)); }
static CK_RV stable_C_DecryptInit(S, M, O) { return real->C_DecryptInit(s, m, object_at(s, o)); }
static CK_RV stable_C_SignInit(S, M, O) { return real->C_SignInit(s, m, object_at(s, o)); }

#define USE(name) mine.name = stable_##name

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
  if (!real) {
    void *module = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
    CK_C_GetFunctionList get = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    if (!get || get(&real) != CKR_OK) return CKR_GENERAL_ERROR;
    mine = *real;
    USE(C_FindObjects), USE(C_GetAttributeValue), USE(C_DestroyObject), USE(C_EncryptInit), USE(C_DecryptInit), USE(C_SignInit);
  }
  *list = &mine;
  return CKR_OK;
}
