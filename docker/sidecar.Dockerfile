# The sidecar. Build from the top of the source tree:
#     docker build -f docker/sidecar.Dockerfile -t garbagetruck .
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libcurl4-openssl-dev libnghttp2-dev libpq-dev libprotobuf-c-dev libprotobuf-dev libssl-dev make pkg-config protobuf-c-compiler zlib1g-dev
COPY . /src
RUN make -C /src/src/sidecar
RUN make -C /src/src/sidecar install prefix=/usr DESTDIR=/out

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libcurl4 libnghttp2-14 libpq5 libprotobuf-c1 libssl3 zlib1g && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/usr/bin/garbagetruck /usr/bin/garbagetruck
# For --file-root: a volume that is new gets its owner from here.
RUN install -d -o 65532 -g 65532 /files
USER 65532:65532
EXPOSE 50051 50052
# The admin port has neither TLS nor tokens, so this holds with any options but another --admin. Podman and buildah keep it with
# --format docker only.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["garbagetruck", "health", "--admin", "http://127.0.0.1:50052"]
ENTRYPOINT ["garbagetruck"]
# --insecure: in cleartext on all of the container's interfaces, the admin port always, gRPC without --tls-cert and
# --tls-key. Give those where others can reach them.
CMD ["serve", "--listen", "0.0.0.0:50051", "--admin", "0.0.0.0:50052", "--insecure"]
