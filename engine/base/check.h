// The engine uses the kernels' checks under the engine's own door.
#ifndef CADRE_ENGINE_BASE_CHECK_H_
#define CADRE_ENGINE_BASE_CHECK_H_

#include "kernels/check.h"

#endif  // CADRE_ENGINE_BASE_CHECK_H_
