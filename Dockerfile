FROM rust:1.95-slim-bookworm AS build
# OpenSSL is built from source
RUN apt-get update && apt-get install -y --no-install-recommends make perl
WORKDIR /mgate
COPY . .
RUN cargo build --release --locked -p mgate --no-default-features --features dtls,wasm

FROM debian:bookworm-slim
# certificate authorities, for upstreams with TLS
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /mgate/target/release/mgate /usr/local/bin/mgate
USER nobody
WORKDIR /etc/mgate
ENTRYPOINT ["mgate"]
CMD ["run"]
