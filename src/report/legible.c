/*-------------------------------------------------------------------------
 *
 * legible.c
 *	  Text of a database in another encoding than UTF-8, for readers of UTF-8
 *	  who must get every row.
 *
 * Some characters of some encodings have no equivalent in UTF-8, and a server
 * refuses a whole result for one of them: one row would hide all the others.  The
 * sidecar's sessions choose this conversion instead of the server's: such a
 * character becomes U+FFFD, which no other text in such a database can become.
 * Nobody else meets it, as pg_catalog comes first in a search_path.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_conversion.h"
#include "catalog/pg_namespace.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(gt__legible);
PG_FUNCTION_INFO_V1(gt__legible_create);

/* For CREATE EXTENSION: the conversion by this function, in this schema, if this database needs one. */
Datum
gt__legible_create(PG_FUNCTION_ARGS)
{
	int			encoding = GetDatabaseEncoding();

	if (encoding != PG_UTF8 && encoding != PG_SQL_ASCII)
		ConversionCreate("gt_legible", PG_GETARG_OID(0), GetUserId(), encoding, PG_UTF8, PG_GETARG_OID(1), true);
	PG_RETURN_VOID();
}

/* The server's own conversion; NULL: there is none, or it was not looked up and can not be. */
static FmgrInfo *
own_conversion(int from)
{
	static FmgrInfo own;
	static int	own_from = -1;
	Oid			function;

	if (own_from == from)
		return &own;
	if (!IsTransactionState())
		return NULL;
	function = FindDefaultConversion(PG_CATALOG_NAMESPACE, from, PG_UTF8);
	if (!OidIsValid(function))
		return NULL;
	fmgr_info_cxt(function, &own, TopMemoryContext);
	own_from = from;
	return &own;
}

/* Convert as much as can be; how many bytes of the source that was. */
static int
convert_some(int from, const char *source, char *target, int len)
{
	FmgrInfo   *own = own_conversion(from);
	int			done = 0;

	if (own != NULL)
		return DatumGetInt32(FunctionCall6(own, Int32GetDatum(from), Int32GetDatum(PG_UTF8), CStringGetDatum(source),
										   CStringGetDatum(target), Int32GetDatum(len), BoolGetDatum(true)));
	while (done < len && !IS_HIGHBIT_SET(source[done]))
	{
		target[done] = source[done];
		done++;
	}
	target[done] = '\0';
	return done;
}

/* A conversion as CREATE CONVERSION wants it; it never fails. */
Datum
gt__legible(PG_FUNCTION_ARGS)
{
	int			from = PG_GETARG_INT32(0);
	const char *source = PG_GETARG_CSTRING(2);
	char	   *target = PG_GETARG_CSTRING(3);
	int			len = PG_GETARG_INT32(4);
	int			done = 0;

	*target = '\0';
	while (done < len)
	{
		done += convert_some(from, source + done, target, len - done);
		target += strlen(target);
		if (done >= len)
			break;
		done += Min(pg_encoding_mblen(from, source + done), len - done);
		strcpy(target, "\xef\xbf\xbd");
		target += 3;
	}
	PG_RETURN_INT32(len);
}
