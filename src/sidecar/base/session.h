/*
 * session.h
 *		What every session of the sidecar relies upon, whatever the cluster's,
 *		the database's or the role's defaults: the calls' and the executors'.
 *
 * A list of set_config() for a SELECT from pg_namespace n, that of the
 * extension.  Where nobody knows what the bytes mean (SQL_ASCII) they are passed
 * on as they are: one that is not UTF-8 must not fail a whole statement.  Nor must
 * a character that UTF-8 does not have: other encodings are read by the extension's
 * own conversion, found in its schema, to which it is U+FFFD.
 */
#ifndef GT_SESSION_H
#define GT_SESSION_H

#define SESSION_SETTINGS \
	" pg_catalog.set_config('search_path', pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) ', pg_catalog', false)," \
	" CASE WHEN pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII'" \
	" THEN pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)" \
	" ELSE pg_catalog.set_config('client_encoding', 'UTF8', false) END," \
	" pg_catalog.set_config('search_path', 'pg_catalog, ' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(n.nspname)" \
	" OPERATOR(pg_catalog.||) ', pg_temp', false)," \
	" pg_catalog.set_config('default_transaction_isolation', 'read committed', false)," \
	" pg_catalog.set_config('default_transaction_deferrable', 'off', false)," \
	" pg_catalog.set_config('default_transaction_read_only', 'off', false)," \
	" pg_catalog.set_config('client_min_messages', 'warning', false)," \
	" pg_catalog.set_config('idle_in_transaction_session_timeout', '0', false)," \
	" pg_catalog.set_config('TimeZone', 'UTC', false)," \
	" pg_catalog.set_config('DateStyle', 'ISO', false)," \
	" pg_catalog.set_config('IntervalStyle', 'postgres', false)," \
	" pg_catalog.set_config('bytea_output', 'hex', false)"

#endif							/* GT_SESSION_H */
