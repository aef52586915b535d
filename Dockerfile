# syntax=docker/dockerfile:1
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /memhook ./cmd/memhook

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /memhook /memhook
EXPOSE 8080
ENTRYPOINT ["/memhook"]
CMD ["serve"]
