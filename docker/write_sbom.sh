#!/bin/sh
# Writes what is in this image as an SPDX 2.3 document (JSON): every installed package, and those that were compiled
# into the programs (build-packages, beside this file). VERSION and CREATED come from the environment.
set -eu
here=$(dirname "$0")
# shellcheck source=/dev/null
distribution=$(. /etc/os-release && echo "$ID")
{
  dpkg-query -W -f 'CONTAINS\t${Package}\t${Version}\t${Architecture}\n'
  sed 's/^/BUILD_DEPENDENCY_OF\t/' "$here/build-packages"
} | awk -F '\t' -v version="${VERSION:-unknown}" -v created="${CREATED:-1970-01-01T00:00:00Z}" \
        -v distribution="$distribution" '
function quoted(text) {
  gsub(/\\/, "\\\\", text)
  gsub(/"/, "\\\"", text)
  return "\"" text "\""
}
function in_url(text) {
  gsub(/%/, "%25", text); gsub(/\+/, "%2B", text); gsub(/:/, "%3A", text); gsub(/~/, "%7E", text)
  return text
}
function package(id, name, number, more) {
  return "    {\"SPDXID\": " quoted(id) ", \"name\": " quoted(name) ", \"versionInfo\": " quoted(number) \
    ", \"downloadLocation\": \"NOASSERTION\", \"filesAnalyzed\": false" more "}"
}
function relation(from, type, to) {
  return "    {\"spdxElementId\": " quoted(from) ", \"relationshipType\": " quoted(type) \
    ", \"relatedSpdxElement\": " quoted(to) "}"
}
BEGIN {
  packages = package("SPDXRef-cadre", "cadre", version, ", \"licenseDeclared\": \"Apache-2.0\"")
  relations = relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-cadre")
}
{
  id = "SPDXRef-" ($1 == "CONTAINS" ? "installed-" : "compiled-") NR
  purl = "pkg:deb/" distribution "/" in_url($2) "@" in_url($3) "?arch=" $4
  reference = "{\"referenceCategory\": \"PACKAGE-MANAGER\", \"referenceType\": \"purl\", \"referenceLocator\": " \
    quoted(purl) "}"
  packages = packages ",\n" package(id, $2, $3, ", \"externalRefs\": [" reference "]")
  if ($1 == "CONTAINS") relations = relations ",\n" relation("SPDXRef-DOCUMENT", $1, id)
  else relations = relations ",\n" relation(id, $1, "SPDXRef-cadre")
}
END {
  print "{"
  print "  \"spdxVersion\": \"SPDX-2.3\", \"dataLicense\": \"CC0-1.0\", \"SPDXID\": \"SPDXRef-DOCUMENT\","
  print "  \"name\": " quoted("cadre-" version) ","
  print "  \"documentNamespace\": " quoted("urn:cadre:image:" version ":" created) ","
  print "  \"creationInfo\": {\"created\": " quoted(created) ", \"creators\": [\"Tool: cadre-write_sbom\"]},"
  print "  \"packages\": [\n" packages "\n  ],"
  print "  \"relationships\": [\n" relations "\n  ]\n}"
}'
