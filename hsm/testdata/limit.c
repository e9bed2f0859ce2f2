/* A PKCS#11 library that is SoftHSM but for one thing: it gives LIMIT sessions at
 * once and then answers CKR_SESSION_COUNT, as network HSMs do. SAYS is the maximum
 * that it tells in C_GetTokenInfo; 0 means that there is none. */
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

typedef unsigned long CK_ULONG;
typedef struct { unsigned char major, minor; void *call[68]; } function_list;

enum { GET_TOKEN_INFO = 6, OPEN_SESSION = 12, CLOSE_SESSION = 13, CLOSE_ALL = 14, FINALIZE = 1 };
#define CKR_SESSION_COUNT 0xB1UL
#define MAX_SESSION_COUNT 104 /* offset of ulMaxSessionCount in CK_TOKEN_INFO */

static function_list *real, limited;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int open_sessions;

static CK_ULONG token_info(CK_ULONG slot, unsigned char *info) {
	CK_ULONG rv = ((CK_ULONG (*)(CK_ULONG, void *))real->call[GET_TOKEN_INFO])(slot, info);
	CK_ULONG says = SAYS;
	if (rv == 0)
		memcpy(info + MAX_SESSION_COUNT, &says, sizeof says);
	return rv;
}

static CK_ULONG open_session(CK_ULONG slot, CK_ULONG flags, void *app, void *notify, CK_ULONG *session) {
	CK_ULONG rv = CKR_SESSION_COUNT;
	pthread_mutex_lock(&lock);
	if (open_sessions < LIMIT) {
		rv = ((CK_ULONG (*)(CK_ULONG, CK_ULONG, void *, void *, CK_ULONG *))real->call[OPEN_SESSION])(slot, flags, app, notify, session);
		open_sessions += rv == 0;
	}
	pthread_mutex_unlock(&lock);
	return rv;
}

static CK_ULONG close_session(CK_ULONG session) {
	pthread_mutex_lock(&lock);
	CK_ULONG rv = ((CK_ULONG (*)(CK_ULONG))real->call[CLOSE_SESSION])(session);
	open_sessions -= rv == 0;
	pthread_mutex_unlock(&lock);
	return rv;
}

static CK_ULONG close_all(CK_ULONG slot) {
	open_sessions = 0;
	return ((CK_ULONG (*)(CK_ULONG))real->call[CLOSE_ALL])(slot);
}

static CK_ULONG finalize(void *reserved) {
	open_sessions = 0;
	return ((CK_ULONG (*)(void *))real->call[FINALIZE])(reserved);
}

CK_ULONG C_GetFunctionList(function_list **list) {
	void *library = dlopen(MODULE, RTLD_NOW);
	CK_ULONG (*get)(function_list **);
	if (library == NULL || (get = dlsym(library, "C_GetFunctionList")) == NULL || get(&real) != 0)
		return 5;
	limited = *real;
	limited.call[GET_TOKEN_INFO] = token_info;
	limited.call[OPEN_SESSION] = open_session;
	limited.call[CLOSE_SESSION] = close_session;
	limited.call[CLOSE_ALL] = close_all;
	limited.call[FINALIZE] = finalize;
	*list = &limited;
	return 0;
}
