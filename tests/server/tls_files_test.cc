#include "server/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "absl/time/clock.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

std::string Drain(BIO* bio) {
  char* data = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(bio, &data));
  std::string text(data, size);
  BIO_free(bio);
  return text;
}

// A certificate that signed itself, valid from half a day ago, and its key, which it takes.
TlsMaterial MakeMaterial(EVP_PKEY* own_key = EVP_EC_gen("P-256"), absl::Duration life = absl::Hours(12)) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(own_key, &EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), &X509_free);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600 * 12);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), absl::ToInt64Seconds(life));
  X509_set_pubkey(certificate.get(), key.get());
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  BIO* const certificate_text = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(certificate_text, certificate.get());
  BIO* const key_text = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(key_text, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  return {.certificate_chain = Drain(certificate_text), .private_key = Drain(key_text), .client_ca = std::nullopt};
}

class TlsFilesTest : public ::testing::Test {
 protected:
  std::string ErrorOf(const TlsMaterial& material) const {
    const absl::Status status = CheckTlsMaterial(material, now_).status();
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  }

  const absl::Time now_ = absl::Now();
  TlsMaterial material_ = MakeMaterial();
};

TEST_F(TlsFilesTest, AcceptsAPairAndAChain) {
  EXPECT_TRUE(CheckTlsMaterial(material_, now_).ok());
  material_.certificate_chain += MakeMaterial().certificate_chain;
  material_.client_ca = MakeMaterial().certificate_chain + "\n" + MakeMaterial().certificate_chain;
  EXPECT_TRUE(CheckTlsMaterial(material_, now_).ok());
}

TEST_F(TlsFilesTest, AKeyOfAnotherCertificateIsRefused) {
  material_.private_key = MakeMaterial().private_key;
  EXPECT_THAT(ErrorOf(material_), HasSubstr("--tls-key: the key is not the one"));
}

TEST_F(TlsFilesTest, HalfOfAFileIsRefused) {
  TlsMaterial half = material_;
  half.certificate_chain.resize(half.certificate_chain.size() / 2);
  EXPECT_THAT(ErrorOf(half), HasSubstr("--tls-cert: there is no certificate"));
  half = material_;
  half.private_key.resize(half.private_key.size() / 2);
  EXPECT_THAT(ErrorOf(half), HasSubstr("--tls-key: there is no private key"));
  half = material_;
  const std::string second = MakeMaterial().certificate_chain;
  half.certificate_chain += second.substr(0, second.size() / 2);
  EXPECT_THAT(ErrorOf(half), HasSubstr("--tls-cert: certificate 2 in it is damaged"));
  half = material_;
  half.client_ca = "-----";
  EXPECT_THAT(ErrorOf(half), HasSubstr("--tls-client-ca: there is no certificate"));
  EXPECT_THAT(ErrorOf(TlsMaterial()), HasSubstr("--tls-cert"));
}

// Taken for none it would let everybody in.
TEST_F(TlsFilesTest, AnEmptyFileOfClientAuthoritiesIsRefused) {
  for (const char* text : {"", "\n", "# to be filled in\n"}) {
    material_.client_ca = text;
    EXPECT_THAT(ErrorOf(material_), HasSubstr("--tls-client-ca: there is no certificate")) << text;
  }
}

TEST_F(TlsFilesTest, AKeyTooShortForTheLibraryIsRefused) {
  EXPECT_THAT(ErrorOf(MakeMaterial(EVP_RSA_gen(512))), HasSubstr("OpenSSL refuses it: ee key too small"));
}

TEST_F(TlsFilesTest, ACertificateOutOfItsTimeIsRefused) {
  EXPECT_THAT(std::string(CheckTlsMaterial(material_, now_ + absl::Hours(24)).status().message()),
              HasSubstr("valid until 20"));
  EXPECT_THAT(std::string(CheckTlsMaterial(material_, now_ - absl::Hours(24)).status().message()),
              HasSubstr("not valid before 20"));
}

// Clients refuse a chain for any of its certificates.
TEST_F(TlsFilesTest, TellsWhenTheFirstOfTheChainExpires) {
  const auto hours_left = [this] {
    return absl::ToInt64Hours(*CheckTlsMaterial(material_, now_) - now_ + absl::Minutes(30));
  };
  EXPECT_EQ(hours_left(), 12);
  material_.certificate_chain += MakeMaterial(EVP_EC_gen("P-256"), absl::Hours(36)).certificate_chain;
  EXPECT_EQ(hours_left(), 12);
  material_.certificate_chain += MakeMaterial(EVP_EC_gen("P-256"), absl::Hours(3)).certificate_chain;
  EXPECT_EQ(hours_left(), 3);
}

TEST_F(TlsFilesTest, ConnectionsGetWhatIsNewOnce) {
  TlsIdentity identity;
  int64_t generation = 0;
  EXPECT_EQ(identity.NewerThan(&generation), nullptr);
  identity.Set(material_);
  EXPECT_FALSE(identity.has_client_ca());
  ASSERT_NE(identity.NewerThan(&generation), nullptr);
  EXPECT_EQ(identity.NewerThan(&generation), nullptr);
  material_.client_ca = material_.certificate_chain;
  identity.Set(material_);
  EXPECT_TRUE(identity.has_client_ca());
  EXPECT_EQ(identity.NewerThan(&generation)->client_ca, material_.client_ca);
}

}  // namespace
}  // namespace cadre
