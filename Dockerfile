# docker build -t postern .        (a release: --build-arg VERSION=v1.2.3)
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The version that "postern version" tells; empty: the commit, from .git.
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -X postern/gateway/version.released=${VERSION}" -o /out/postern .
RUN install -d -m 0700 /out/state

# Nothing but the program, the authorities that backends' certificates are checked with, and an empty folder for the state.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/postern /postern
COPY --from=build --chown=65532:65532 /out/state /var/lib/postern
USER 65532:65532
# The configuration is /etc/postern/postern.toml, mounted read-only.
VOLUME /var/lib/postern
# IMAP, sending (two ways), POP3, filters, and HTTPS for calendars and contacts: those that have a [[listener]]. Docker lets every user of a
# container listen on low ports.
EXPOSE 993 465 587 995 4190 443
HEALTHCHECK --interval=15s --timeout=6s --start-period=10s CMD ["/postern", "healthcheck"]
ENTRYPOINT ["/postern"]
CMD ["serve"]
