#!/usr/bin/env bash
# Writes where the Kubernetes API listens, for components/api-server.
#
#   manifests/api-server.sh         asks the cluster of your KUBECONFIG by kubectl
#
# The endpoint slice of `kubernetes` has the addresses behind the Service, which are
# what a network policy sees. Exit codes: 0 written, 1 the cluster names none.
set -euo pipefail

folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/components/api-server"
found="$(kubectl get endpointslices --namespace default kubernetes --output \
  jsonpath='{.addressType}{"\n"}{.endpoints[*].addresses[*]}{"\n"}{.ports[*].port}')"
{ read -r kind && read -ra addresses && read -ra ports; } <<<"$found" || true
if [ "${#addresses[@]}" = 0 ] || [ "${#ports[@]}" = 0 ]; then
  echo "The endpoint slice kubernetes in namespace default names no address." >&2
  exit 1
fi
bits=32
[ "$kind" = IPv6 ] && bits=128
{
  printf '%s\n' '# Written by manifests/api-server.sh.' '- op: replace' \
    '  path: /spec/egress' '  value:' '    - to:'
  printf "        - ipBlock: {cidr: \"%s/$bits\"}\n" "${addresses[@]}"
  printf '      ports:\n'
  printf '        - {protocol: TCP, port: %s}\n' "${ports[@]}"
} >"$folder/address.yaml"
echo "$folder/address.yaml: ${addresses[*]}, port ${ports[*]}"
