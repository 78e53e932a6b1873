# PostgreSQL with garbagetruck. Build from the top of the source tree:
#     docker build -f docker/server.Dockerfile --build-arg PG_MAJOR=17 -t garbagetruck-server .
# BASE is the official image or one that is made like it: PostgreSQL of major PG_MAJOR, and apt knows its
# postgresql-server-dev package.
ARG PG_MAJOR=17
ARG BASE=postgres:${PG_MAJOR}-bookworm

FROM ${BASE} AS build
ARG PG_MAJOR
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make postgresql-server-dev-${PG_MAJOR}
COPY . /src
RUN make -C /src PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config with_llvm=no
RUN make -C /src PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config with_llvm=no install DESTDIR=/out

FROM ${BASE}
ARG PG_MAJOR
COPY --from=build /out/ /
# Runs once, on a new data directory: the extension, and the sidecar's role if it is given a password.
COPY docker/initdb.sh /docker-entrypoint-initdb.d/10-garbagetruck.sh
# In the configuration of new data directories, not on the command line: there it would win over ALTER SYSTEM for ever, and be lost
# with any other CMD. A data directory that is there already needs it in its postgresql.conf.
RUN echo "shared_preload_libraries = 'garbagetruck'" >> /usr/share/postgresql/${PG_MAJOR}/postgresql.conf.sample
