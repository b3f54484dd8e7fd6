#include "server/tls_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio OpenText(const std::string& text) {
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free};
}

// There is nobody to ask for one.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::Status TlsError(const char* flag, const std::string& problem) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", problem));
}

// The first certificate of `text`. All that follow it must be certificates, too.
absl::StatusOr<Certificate> ReadCertificates(const char* flag, const std::string& text) {
  const Bio bio = OpenText(text);
  Certificate first(PEM_read_bio_X509(bio.get(), nullptr, &NoPassphrase, nullptr), &X509_free);
  if (first == nullptr) return TlsError(flag, "there is no certificate in PEM in it");
  for (int number = 2;; ++number) {
    const Certificate next(PEM_read_bio_X509(bio.get(), nullptr, &NoPassphrase, nullptr), &X509_free);
    if (next != nullptr) continue;
    const bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    if (is_end) return first;
    return TlsError(flag, absl::StrCat("certificate ", number, " in it is damaged"));
  }
}

std::string TimeText(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "an unknown time";
  return absl::FormatTime(absl::RFC3339_sec, absl::FromTM(parts, absl::UTCTimeZone()), absl::UTCTimeZone());
}

absl::Status CheckTime(const X509& certificate, absl::Time now) {
  time_t seconds = absl::ToTimeT(now);
  const ASN1_TIME* const begin = X509_get0_notBefore(&certificate);
  const ASN1_TIME* const end = X509_get0_notAfter(&certificate);
  if (X509_cmp_time(begin, &seconds) > 0) {
    return TlsError("--tls-cert", absl::StrCat("the certificate is not valid before ", TimeText(begin)));
  }
  if (X509_cmp_time(end, &seconds) < 0) {
    return TlsError("--tls-cert", absl::StrCat("the certificate was valid until ", TimeText(end)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTlsMaterial(const TlsMaterial& material, absl::Time now) {
  CADRE_ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificates("--tls-cert", material.certificate_chain));
  const Bio bio = OpenText(material.private_key);
  const PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassphrase, nullptr), &EVP_PKEY_free);
  if (key == nullptr) return TlsError("--tls-key", "there is no private key in PEM without a passphrase in it");
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return TlsError("--tls-key", "the key is not the one of the certificate of --tls-cert");
  }
  CADRE_RETURN_IF_ERROR(CheckTime(*certificate, now));
  if (material.client_ca.empty()) return absl::OkStatus();
  return ReadCertificates("--tls-client-ca", material.client_ca).status();
}

void TlsIdentity::Set(TlsMaterial material) {
  auto next = std::make_shared<const TlsMaterial>(std::move(material));
  const std::lock_guard lock(mutex_);
  material_ = std::move(next);
  ++generation_;
}

bool TlsIdentity::has_client_ca() const {
  const std::lock_guard lock(mutex_);
  return material_ != nullptr && !material_->client_ca.empty();
}

std::shared_ptr<const TlsMaterial> TlsIdentity::NewerThan(int64_t* generation) const {
  const std::lock_guard lock(mutex_);
  if (*generation == generation_) return nullptr;
  *generation = generation_;
  return material_;
}

}  // namespace cadre
