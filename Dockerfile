# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS=linux TARGETARCH=amd64 VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X github.com/memhook/memhook/cmd/internal/app.release=$VERSION" -o /out/ ./cmd/memhook ./cmd/memhook-dev

# The simulated memories.ai, for trying memhook out: docker build --target dev .
FROM gcr.io/distroless/static-debian12:nonroot AS dev
COPY --from=build /out/memhook-dev /memhook-dev
USER nonroot:nonroot
ENTRYPOINT ["/memhook-dev"]

FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=dev
LABEL org.opencontainers.image.title="memhook" \
      org.opencontainers.image.description="Turns memories.ai's poll-only task status into signed webhooks" \
      org.opencontainers.image.source="https://github.com/memhook/memhook" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/memhook /memhook
USER nonroot:nonroot
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/memhook", "health"]
ENTRYPOINT ["/memhook"]
CMD ["serve"]
