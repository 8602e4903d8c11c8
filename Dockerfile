# larder, and nothing else: no shell, no package manager, no root.
#
#   docker build -t larder .
#   docker run --rm -p 5051:5051 -v larder-data:/var/lib/larder -v ./tls:/tls:ro \
#     -e LARDER_TLS_CERT=/tls/tls.crt -e LARDER_TLS_KEY=/tls/tls.key larder
#
# Without a certificate it refuses to start, but with -e LARDER_ALLOW_CLEAR_TEXT=true.
FROM docker.io/library/rust:1.91-bookworm AS build
# aws-lc, which encrypts, is built by cmake.
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package larder-cli --bin larder
# A volume that is mounted here takes its owner over.
RUN mkdir -p /data/larder

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chmod=0755 /src/target/release/larder /usr/local/bin/larder
COPY --from=build --chown=65532:65532 --chmod=0700 /data/larder /var/lib/larder
USER 65532:65532
VOLUME /var/lib/larder
ENV LARDER_DATA_DIR=/var/lib/larder \
    LARDER_LISTEN=0.0.0.0:5051 \
    LARDER_ADMIN=127.0.0.1:5053 \
    LARDER_LOG_FORMAT=json
EXPOSE 5051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/usr/local/bin/larder", "health"]
ENTRYPOINT ["/usr/local/bin/larder"]
CMD ["serve"]
