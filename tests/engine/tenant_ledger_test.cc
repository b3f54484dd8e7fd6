// Accounts of tenants: bounded in number, exact in what they hold.
#include "engine/tenant_ledger.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

RoutingReport Report(int64_t processed, int64_t dropped) {
  return {.processed = processed,
          .rerouted = 1,
          .reweighted = 2,
          .dropped = dropped,
          .lost_gate_weight = 0.5,
          .total_gate_weight = 2.0};
}

TEST(TenantLedgerTest, EachHasItsAccount) {
  TenantLedger ledger(1000);
  const size_t a = ledger.Open("a");
  const size_t nobody = ledger.Open("");
  EXPECT_EQ(ledger.Open("a"), a);
  ledger.Add(std::vector{a, nobody, a}, std::vector{Report(10, 3), Report(5, 0), Report(1, 4)});
  const std::vector<TenantRouting> accounts = ledger.Snapshot();
  ASSERT_EQ(accounts.size(), 3u);
  EXPECT_EQ(accounts[0].tenant, "");
  EXPECT_EQ(accounts[0].routing.processed, 5);
  EXPECT_EQ(accounts[1].tenant, "other");
  EXPECT_EQ(accounts[1].routing.total(), 0);
  EXPECT_EQ(accounts[2].tenant, "a");
  EXPECT_EQ(accounts[2].routing.processed, 11);
  EXPECT_EQ(accounts[2].routing.rerouted, 2);
  EXPECT_EQ(accounts[2].routing.reweighted, 4);
  EXPECT_EQ(accounts[2].routing.dropped, 7);
  EXPECT_EQ(accounts[2].routing.lost_gate_weight, 1.0);
  EXPECT_EQ(accounts[2].routing.total_gate_weight, 4.0);
  EXPECT_EQ(ledger.num_assignments(), 24 + 8);
}

// A request of the tenant that was assigned so much, from its begin to its end.
void Serve(TenantLedger& ledger, const std::string& tenant, int64_t assignments) {
  const size_t number = ledger.Open(tenant);
  ledger.Add(std::vector{number}, std::vector{RoutingReport{.processed = assignments}});
  ledger.Close(number);
}
std::map<std::string, int64_t> Processed(const TenantLedger& ledger) {
  std::map<std::string, int64_t> processed;
  for (const TenantRouting& account : ledger.Snapshot()) {
    EXPECT_TRUE(processed.emplace(account.tenant, account.routing.processed).second) << account.tenant;
  }
  return processed;
}

// Whoever makes up names fills nobody's memory, and displaces nobody but such names.
TEST(TenantLedgerTest, MadeUpNamesDisplaceEachOther) {
  TenantLedger ledger(/*recent_assignments=*/10000);
  constexpr int kLoyal = 50;
  constexpr int kRounds = 40;
  int64_t of_names = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kLoyal; ++i) Serve(ledger, absl::StrCat("loyal", i), 100);
    for (int i = 0; i < 300; ++i, of_names += 2) Serve(ledger, absl::StrCat("name", round, "_", i), 2);
    const std::map<std::string, int64_t> processed = Processed(ledger);
    ASSERT_EQ(processed.size(), TenantLedger::kMaxTenants + 2);
    for (int i = 0; i < kLoyal; ++i) {
      ASSERT_EQ(processed.at(absl::StrCat("loyal", i)), 100 * (round + 1)) << "has its account, and all of it";
    }
  }
  EXPECT_EQ(Processed(ledger).at("other"), of_names - 2 * int64_t{TenantLedger::kMaxTenants - kLoyal});
  EXPECT_EQ(ledger.num_assignments(), of_names + kLoyal * kRounds * 100);
}

TEST(TenantLedgerTest, WhoHasSomethingInFlightKeepsItsAccount) {
  TenantLedger ledger(10000);
  std::vector<size_t> numbers;
  for (size_t i = 0; i < TenantLedger::kMaxTenants; ++i) numbers.push_back(ledger.Open(absl::StrCat("t", i)));
  const size_t late = ledger.Open("late");
  ledger.Add(std::vector{late, numbers[3]}, std::vector{Report(7, 0), Report(5, 2)});
  EXPECT_EQ(Processed(ledger).at("other"), 7);
  ledger.Open("t3");  // twice
  ledger.Close(numbers[3]);
  Serve(ledger, "late", 9);
  EXPECT_EQ(Processed(ledger).at("other"), 16);
  ledger.Close(numbers[3]);
  ledger.Close(late);
  Serve(ledger, "soon", 9);
  EXPECT_EQ(Processed(ledger).at("t3"), 5) << "who alone did something lately";
  EXPECT_EQ(Processed(ledger).at("other"), 25);
  // All others did as much as t3 did, whose account is then not worth more than theirs.
  std::erase(numbers, numbers[3]);
  ledger.Add(numbers, std::vector<RoutingReport>(numbers.size(), {.processed = 10}));
  Serve(ledger, "later", 9);
  const std::map<std::string, int64_t> processed = Processed(ledger);
  EXPECT_EQ(processed.at("later"), 9);
  EXPECT_FALSE(processed.contains("t3"));
  EXPECT_EQ(processed.at("other"), 25 + 5) << "with all that t3 held";
  for (const TenantRouting& account : ledger.Snapshot()) {
    if (account.tenant == "other") {
      EXPECT_EQ(account.routing.dropped, 2);
      EXPECT_EQ(account.routing.lost_gate_weight, 1.0);
    }
  }
}

// However many made-up names are in flight.
TEST(TenantLedgerTest, WhoHadMoreThanItsPartLatelyKeepsItsAccount) {
  TenantLedger ledger(1'000'000);
  Serve(ledger, "loyal", 5000);
  Serve(ledger, "idle", 50);
  std::vector<size_t> numbers;
  for (size_t i = 2; i < TenantLedger::kMaxTenants; ++i) numbers.push_back(ledger.Open(absl::StrCat("name", i)));
  for (int i = 0; i < 300; ++i) Serve(ledger, absl::StrCat("more", i), 1);
  std::map<std::string, int64_t> processed = Processed(ledger);
  EXPECT_EQ(processed.at("loyal"), 5000);
  EXPECT_FALSE(processed.contains("idle")) << "a hundredth is no more than a hundredth";
  EXPECT_TRUE(processed.contains("more299"));
  const size_t taken = ledger.Open("more299");
  Serve(ledger, "one too many", 7);
  processed = Processed(ledger);
  EXPECT_EQ(processed.at("loyal"), 5000) << "though nobody else is idle";
  EXPECT_EQ(processed.at("other"), 50 + 299 + 7);
  ledger.Close(taken);
  ledger.Add(numbers, std::vector<RoutingReport>(numbers.size(), {.processed = 10'000}));
  Serve(ledger, "again", 3);
  EXPECT_EQ(Processed(ledger).at("again"), 3) << "that of more299, who did least";
}

TEST(TenantLedgerTest, TheLeastGivesWayAndOfEqualsTheLongestAway) {
  TenantLedger ledger(1'000'000);
  for (size_t i = 0; i < TenantLedger::kMaxTenants; ++i) Serve(ledger, absl::StrCat("t", i), i == 70 ? 9 : 10);
  for (size_t i = 0; i < 5; ++i) Serve(ledger, absl::StrCat("t", i), 0);
  Serve(ledger, "a", 20);
  EXPECT_FALSE(Processed(ledger).contains("t70"));
  Serve(ledger, "b", 20);
  Serve(ledger, "c", 20);
  const std::map<std::string, int64_t> processed = Processed(ledger);
  EXPECT_FALSE(processed.contains("t5"));
  EXPECT_FALSE(processed.contains("t6"));
  EXPECT_TRUE(processed.contains("t0"));
  EXPECT_TRUE(processed.contains("t7"));
}

// What was long ago counts for little.
TEST(TenantLedgerTest, OldMeritsFade) {
  TenantLedger ledger(1000);
  Serve(ledger, "old", 800);
  for (size_t i = 1; i < TenantLedger::kMaxTenants; ++i) Serve(ledger, absl::StrCat("t", i), 5);
  for (int round = 0; round < 20; ++round) {
    for (size_t i = 1; i < TenantLedger::kMaxTenants; ++i) Serve(ledger, absl::StrCat("t", i), 5);
  }
  EXPECT_EQ(Processed(ledger).at("old"), 800);
  Serve(ledger, "new", 1);
  EXPECT_FALSE(Processed(ledger).contains("old"));
  EXPECT_EQ(Processed(ledger).at("other"), 800);
}

TEST(TenantLedgerTest, ASnapshotHasWholeSteps) {
  TenantLedger ledger(1000);
  std::atomic<bool> done = false;
  std::thread engine([&] {
    for (int i = 0; i < 3000; ++i) {
      const size_t number = ledger.Open(absl::StrCat(i % 200));
      const size_t nobody = ledger.Open("");
      ledger.Add(std::vector{number, nobody}, std::vector{Report(3, 4), Report(3, 4)});
      ledger.Close(number);
      ledger.Close(nobody);
    }
    done = true;
  });
  int64_t last = 0;
  do {
    int64_t named = 0;
    int64_t unnamed = 0;
    for (const TenantRouting& account : ledger.Snapshot()) {
      (account.tenant.empty() ? unnamed : named) += account.routing.total();
    }
    EXPECT_EQ(named, unnamed);
    EXPECT_GE(named, last);
    last = named;
  } while (!done);
  engine.join();
  EXPECT_EQ(ledger.num_assignments(), 2 * 3000 * 10);
}

}  // namespace
}  // namespace cadre
