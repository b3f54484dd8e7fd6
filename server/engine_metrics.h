// Requests, tokens, queue and KV cache as metric families, from one EngineSnapshot; and what is constant of a model.
#ifndef CADRE_SERVER_ENGINE_METRICS_H_
#define CADRE_SERVER_ENGINE_METRICS_H_

#include "engine/engine.h"
#include "server/metric_page.h"
#include "server/metrics.h"

namespace cadre {

// Everything that changes as the engine runs. Before a model is loaded, a default-constructed snapshot writes the same
// families at zero.
void WriteEngine(const EngineSnapshot& snapshot, MetricPage& page);

// What is constant once a model is loaded.
// What other expert caches would have done; 0 before the first simulation.
void WriteWhatIf(const WhatIfReport& report, MetricPage& page);
// Of calls that are traced.
void WriteSpans(const SpanCounts& counts, MetricPage& page);
void WriteServedModel(const ServedModel& planned, const EngineSnapshot& snapshot, MetricPage& page);

}  // namespace cadre

#endif  // CADRE_SERVER_ENGINE_METRICS_H_
