/* A PKCS#11 module that stands between a node and its token and writes down
 * what the token signs: a line with the key's label and the digest, in the file
 * HUFU_WITNESS_LOG, before the signature leaves. The line is there whatever
 * happens to the node afterwards. Everything else goes straight to the module
 * HUFU_WITNESS_MODULE.
 *
 * Only what is needed of pkcs11.h is declared here (PKCS #11 v2.40, Sections
 * 3.5 and 5): a function list is a version and pointers in a fixed order. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong;
enum { C_GetAttributeValue = 24, C_SignInit = 42, C_Sign = 43, C_Functions = 68 };
enum { CKR_OK = 0, CKR_GENERAL_ERROR = 5, CKA_LABEL = 3 };

struct list { unsigned char major, minor; void *function[C_Functions]; };
struct attribute { ulong type; void *value; ulong length; };

typedef ulong (*get_list)(struct list **);
typedef ulong (*get_attribute)(ulong session, ulong object, struct attribute *, ulong count);
typedef ulong (*sign_init)(ulong session, void *mechanism, ulong key);
typedef ulong (*sign)(ulong session, unsigned char *data, ulong length, unsigned char *signature, ulong *size);

static struct list *real, shown;
static int out = -1;

/* The label of the key that a session signs with next. A session belongs to one
 * thread at a time (PKCS #11 v2.40, Section 2.5.3), so no lock is needed. */
enum { SESSIONS = 1 << 16 };
static char labels[SESSIONS][64];

static ulong witness_init(ulong session, void *mechanism, ulong key)
{
	char *label = labels[session % SESSIONS];
	struct attribute a = { CKA_LABEL, label, sizeof labels[0] - 1 };
	memset(label, 0, sizeof labels[0]);
	if (((get_attribute)real->function[C_GetAttributeValue])(session, key, &a, 1) != CKR_OK)
		strcpy(label, "?");
	return ((sign_init)real->function[C_SignInit])(session, mechanism, key);
}

static ulong witness_sign(ulong session, unsigned char *data, ulong length, unsigned char *signature, ulong *size)
{
	ulong rv = ((sign)real->function[C_Sign])(session, data, length, signature, size);
	char line[sizeof labels[0] + 2 * 64 + 2];
	if (rv != CKR_OK || signature == NULL)
		return rv;
	int n = snprintf(line, sizeof labels[0] + 1, "%s ", labels[session % SESSIONS]);
	for (ulong i = 0; i < length && i < 64; i++)
		n += sprintf(line + n, "%02x", data[i]);
	line[n++] = '\n';
	/* One write to a file opened for appending: lines of threads do not mix. */
	return write(out, line, n) == n ? CKR_OK : CKR_GENERAL_ERROR;
}

ulong C_GetFunctionList(struct list **answer)
{
	if (real == NULL) {
		const char *module = getenv("HUFU_WITNESS_MODULE"), *log = getenv("HUFU_WITNESS_LOG");
		void *library = module && log ? dlopen(module, RTLD_NOW | RTLD_LOCAL) : NULL;
		get_list get = library ? (get_list)dlsym(library, "C_GetFunctionList") : NULL;
		if (get == NULL || get(&real) != CKR_OK || (out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) {
			real = NULL;
			return CKR_GENERAL_ERROR;
		}
		shown = *real;
		shown.function[C_SignInit] = witness_init;
		shown.function[C_Sign] = witness_sign;
	}
	*answer = &shown;
	return CKR_OK;
}
