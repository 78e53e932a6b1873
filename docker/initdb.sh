#!/bin/sh
# For docker-entrypoint-initdb.d: creates the extension in POSTGRES_DB and the role of the sidecar.
#
# GARBAGETRUCK_PASSWORD or the file GARBAGETRUCK_PASSWORD_FILE: of the role garbagetruck, which may then lease, clean by
# the two built-in handlers, and read the metrics. Without either there is no such role.
# The server's entrypoint may source this file instead of running it: no exit, no set, nothing left behind.
psql -X -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" -c 'CREATE EXTENSION garbagetruck'

if [ -n "${GARBAGETRUCK_PASSWORD_FILE:-}" ]; then
	GARBAGETRUCK_PASSWORD=$(cat "$GARBAGETRUCK_PASSWORD_FILE")
fi
if [ -n "${GARBAGETRUCK_PASSWORD:-}" ]; then
	psql -X -v ON_ERROR_STOP=1 -v password="$GARBAGETRUCK_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE garbagetruck LOGIN PASSWORD :'password';
SELECT gt_allow('garbagetruck', 'lease'), gt_allow('garbagetruck', 'monitor');
SELECT gt_handler_grant(handler, 'garbagetruck', 'claim') FROM (VALUES ('http_endpoint'), ('grpc_endpoint')) AS h(handler);
SQL
fi
