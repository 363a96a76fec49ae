#!/bin/sh
# Installs the Debian packages that `make browser-test`, `make web-test`, `make docs-check`,
# `make clients-test` and `make pyinstaller-test` need and that are missing; as root, else it says which.
set -eu
packages="nginx-light openssl chromium chromium-driver g++ pkg-config libcpp-httplib-dev libssl-dev nlohmann-json3-dev default-jdk-headless
libgoogle-gson-java golang-go mono-mcs libnewtonsoft-json5.0-cil libmono-system-net-http4.0-cil php-cli curl jq binutils"
command -v node >/dev/null || packages="$packages nodejs"
command -v npm >/dev/null || packages="$packages npm"

missing=""
for package in $packages; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "not installed, so their tests are skipped; run  sudo apt-get install$missing" >&2
    exit 0
fi
apt-get update -qq
# shellcheck disable=SC2086 # each word is a package
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
