"""The seeded bugs of keys, roles and what protects them."""

from mutant import Mutant

SECURITY_MUTANTS = [
    Mutant(
        "a second key hides the first",
        "server/access_control.cc",
        "if (authorizations.size() > 1)",
        "if (authorizations.size() > 9)",
        "access_test", "AccessControlTest.OnlyOneWholeKeyCounts"),
    Mutant(
        "any key will do for any method",
        "server/access_control.cc",
        "(key->roles & method->roles) == 0",
        "key->roles == 0",
        "access_test", "AccessControlTest.AKeyIsGoodForItsRoles"),
    Mutant(
        "a method that the table forgot is everybody's",
        "server/access_control.cc",
        "    if (!method.has_value()) return UnknownMethod(path);\n    if (",
        "    if (!method.has_value()) return absl::OkStatus();\n    if (",
        "access_test", "AccessControlTest.AKeyIsGoodForItsRoles"),
    Mutant(
        "operators' calls are always on",
        "server/access_control.cc",
        "method->is_operators && !operator_services_",
        "method->is_operators && !operator_services_ && keys() != nullptr",
        "access_test", "AccessControlTest.OperatorsCallsAreOffUnlessEnabled"),
    Mutant(
        "the door leaves everything to handlers",
        "server/access_control.cc",
        "if (handled_.contains(path)) return absl::OkStatus();",
        "if (!handled_.empty()) return absl::OkStatus();",
        "access_test", "AccessControlTest.TheDoorLeavesNothingToNobody"),
    Mutant(
        "a handler that was left with the question does not ask",
        "server/incoming_call.cc",
        "CheckAccess(services, *context, path); !status.ok()",
        "CheckAccess(services, *context, path); status.code() == absl::StatusCode::kInternal",
        "services_test", "UnreadAnswerTest.AStrangerIsToldWhyAndNotRead"),
    Mutant(
        "an unread answer is kept",
        "server/reading_watch.cc",
        "  context_->TryCancel();\n",
        "",
        "services_test", "UnreadAnswerTest.AnAnswerThatNobodyTakesIsCutOff"),
    Mutant(
        "of a stream the last message alone must be read",
        "server/streamed_call.cc",
        "  if (bytes <= services().stream.max_outbox_bytes && !IsOneAnswer()) return;\n",
        "  if (bytes <= services().stream.max_outbox_bytes || !is_ending_ || !waiting_.empty()) return;\n",
        "services_test", "UnreadAnswerTest.AStreamWhoseFirstMessage*:UnreadAnswerTest.AnAnswerInParts*"),
    Mutant(
        "a watcher of experts need not read",
        "server/stats_stream.cc",
        "    watch().Begin(MessagePatience(message_.Length(), services().stream.slow_reader_timeout),\n"
        "                  ReadingWatch::WhenLate::kTellFirst);\n",
        "",
        "services_test", "UnreadAnswerTest.AWatcherThatDoesNotReadLosesItsPlace"),
    Mutant(
        "half a request has no end",
        "server/single_request_call.cc",
        "    if (!is_read->exchange(true)) Finish(",
        "    if (is_read->exchange(true)) Finish(",
        "services_test", "UnreadAnswerTest.HalfARequestHasAnEnd"),
    Mutant(
        "a key is judged when the headers come, and never again",
        "server/single_request_call.cc",
        "CheckAccess(); !status.ok()) return Finish",
        "CheckAccess(); status.code() == absl::StatusCode::kInternal) return Finish",
        "server_units_test", "SingleRequestCallTest.AKeyThatIsWithdrawn*"),
    Mutant(
        "a generation's key is judged when the headers come, and never again",
        "server/request_call.cc",
        "CheckAccess(services_, context_, path_); !status.ok()) {",
        "CheckAccess(services_, context_, path_); status.code() == absl::StatusCode::kInternal) {",
        "server_units_test", "SingleRequestCallTest.AKeyThatIsWithdrawn*"),
    Mutant(
        "parts of an answer are watched one by one",
        "server/streamed_call.cc",
        "  for (const grpc::ByteBuffer& waiting : waiting_) bytes += waiting.Length();\n"
        "  if (bytes <= services().stream.max_outbox_bytes && !IsOneAnswer()) return;\n",
        "  if (bytes <= services().stream.max_outbox_bytes) return;\n",
        "services_test", "UnreadAnswerTest.AnAnswerInParts*"),
    Mutant(
        "a chain lives as long as its last certificate",
        "server/tls_files.cc",
        "    first = std::min(first, ",
        "    first = std::max(absl::InfinitePast(), ",
        "access_test", "TlsFilesTest.TellsWhenTheFirstOfTheChainExpires"),
    Mutant(
        "whatever begins like health needs no key",
        "server/method_roles.h",
        "\"/grpc.health.v1.Health/\"",
        "\"/grpc.health.v1.Health\"",
        "access_test", "AccessControlTest.WithoutAKeyNothingButHealthIsAnswered"),
    Mutant(
        "half a digest is enough",
        "server/api_keys.cc",
        "digest.data(), digest.size()) == 0",
        "digest.data(), 0) == 0",
        "access_test", "ApiKeysTest.FindsTheKeyOfASecret"),
    Mutant(
        "one name, two sets of roles",
        "server/api_keys.cc",
        "roles_of_name.try_emplace(key->name, key->roles).first->second != key->roles",
        "roles_of_name.try_emplace(key->name, key->roles).first->second == 0",
        "access_test", "ApiKeysTest.ErrorsNameTheLineAndNeverASecret"),
    Mutant(
        "a key file that everybody may write",
        "server/watched_files.cc",
        "S_IWGRP | S_IWOTH",
        "S_IWGRP",
        "access_test", "WatchedFilesTest.AFileThatOthersMayWriteIsRefused"),
    Mutant(
        "half of a pair is taken for a mistake",
        "server/watched_files.cc",
        "  if (fingerprint != seen_wrong_) {",
        "  if (fingerprint.empty()) {",
        "access_test", "WatchedFilesTest.ALaterMistakeIsToldOnceAndChangesNothing"),
    Mutant(
        "a key of another certificate",
        "server/tls_files.cc",
        "X509_check_private_key(chain.front().get(), key.get()) != 1",
        "X509_check_private_key(chain.front().get(), key.get()) > 1",
        "access_test", "TlsFilesTest.AKeyOfAnotherCertificateIsRefused"),
    Mutant(
        "an empty file of authorities lets everybody in",
        "server/tls_files.cc",
        "if (material.client_ca.has_value()) {",
        "if (material.client_ca.has_value() && !material.client_ca->empty()) {",
        "access_test", "TlsFilesTest.AnEmptyFileOfClientAuthoritiesIsRefused"),
    Mutant(
        "what was wrong once is never tried again",
        "server/watched_files.cc",
        "  absl::Status status = texts.ok() ? install_(*texts)",
        "  if (fingerprint == told_wrong_) return std::nullopt;\n  absl::Status status = texts.ok() ? install_(*texts)",
        "access_test", "WatchedFilesTest.WhatBecomesRightByTimeAloneIsTaken"),
    Mutant(
        "a certificate that is too old",
        "server/tls_files.cc",
        "X509_cmp_time(end, &seconds) < 0",
        "X509_cmp_time(end, &seconds) > 1",
        "access_test", "TlsFilesTest.ACertificateOutOfItsTimeIsRefused"),
    Mutant(
        "a bucket saves without an end",
        "server/tenant_limiter.cc",
        "std::min(account.tokens + seconds * limits_.requests_per_second, limits_.burst)",
        "account.tokens + seconds * limits_.requests_per_second",
        "access_test", "TenantLimiterTest.ABurstThenTheRate"),
    Mutant(
        "who is answered makes no room",
        "server/tenant_limiter.cc",
        "  --accounts_.at(account).num_open;\n",
        "  accounts_.at(account).num_open += 0;\n",
        "access_test", "TenantLimiterTest.WhoIsAnsweredMakesRoom"),
    Mutant(
        "the log keeps whose request it was to itself",
        "server/logging.cc",
        "if (!fields.empty()) line.update(",
        "if (fields.size() > 4096) line.update(",
        "server_units_test", "JsonFormatterTest.*"),
]
