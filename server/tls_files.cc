#include "server/tls_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using TlsContext = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;

Bio OpenText(const std::string& text) {
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free};
}

// There is nobody to ask for one.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::Status TlsError(const char* flag, const std::string& problem) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", problem));
}

// One or more. All of `text` must be certificates.
absl::StatusOr<std::vector<Certificate>> ReadCertificates(const char* flag, const std::string& text) {
  const Bio bio = OpenText(text);
  std::vector<Certificate> certificates;
  for (;;) {
    Certificate next(PEM_read_bio_X509(bio.get(), nullptr, &NoPassphrase, nullptr), &X509_free);
    if (next != nullptr) {
      certificates.push_back(std::move(next));
      continue;
    }
    const bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    if (certificates.empty()) return TlsError(flag, "there is no certificate in PEM in it");
    if (is_end) return certificates;
    return TlsError(flag, absl::StrCat("certificate ", certificates.size() + 1, " in it is damaged"));
  }
}

// Whether a TLS library at its own security level serves with them, as gRPC will ask it to: keys that are too short are
// good pairs all the same.
absl::Status CheckSecurityLevel(const std::vector<Certificate>& chain, EVP_PKEY* key) {
  const auto refused = [](const char* flag) {
    const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
    return TlsError(flag, absl::StrCat("OpenSSL refuses it: ", reason == nullptr ? "unknown reason" : reason));
  };
  ERR_clear_error();
  const TlsContext context(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free);
  if (context == nullptr) return refused("--tls-cert");
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) return refused("--tls-cert");
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1) return refused("--tls-cert");
  }
  return SSL_CTX_use_PrivateKey(context.get(), key) == 1 ? absl::OkStatus() : refused("--tls-key");
}

// The infinite past for what is no time.
absl::Time ReadTime(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTM(parts, absl::UTCTimeZone());
}

std::string TimeText(const ASN1_TIME* time) {
  return absl::FormatTime(absl::RFC3339_sec, ReadTime(time), absl::UTCTimeZone());
}

absl::Time FirstExpiry(const std::vector<Certificate>& chain) {
  absl::Time first = absl::InfiniteFuture();
  for (const Certificate& certificate : chain) {
    first = std::min(first, ReadTime(X509_get0_notAfter(certificate.get())));
  }
  return first;
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

absl::StatusOr<absl::Time> CheckTlsMaterial(const TlsMaterial& material, absl::Time now) {
  CADRE_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                         ReadCertificates("--tls-cert", material.certificate_chain));
  const Bio bio = OpenText(material.private_key);
  const PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &NoPassphrase, nullptr), &EVP_PKEY_free);
  if (key == nullptr) return TlsError("--tls-key", "there is no private key in PEM without a passphrase in it");
  if (X509_check_private_key(chain.front().get(), key.get()) != 1) {
    return TlsError("--tls-key", "the key is not the one of the certificate of --tls-cert");
  }
  CADRE_RETURN_IF_ERROR(CheckTime(*chain.front(), now));
  CADRE_RETURN_IF_ERROR(CheckSecurityLevel(chain, key.get()));
  if (material.client_ca.has_value()) {
    CADRE_RETURN_IF_ERROR(ReadCertificates("--tls-client-ca", *material.client_ca).status());
  }
  return FirstExpiry(chain);
}

void TlsIdentity::Set(TlsMaterial material) {
  auto next = std::make_shared<const TlsMaterial>(std::move(material));
  const std::lock_guard lock(mutex_);
  material_ = std::move(next);
  ++generation_;
}

bool TlsIdentity::has_client_ca() const {
  const std::lock_guard lock(mutex_);
  return material_ != nullptr && material_->client_ca.has_value();
}

std::shared_ptr<const TlsMaterial> TlsIdentity::NewerThan(int64_t* generation) const {
  const std::lock_guard lock(mutex_);
  if (*generation == generation_) return nullptr;
  *generation = generation_;
  return material_;
}

}  // namespace cadre
