#include "server/version.h"

namespace cadre {

const char* ServerVersion() { return CADRE_VERSION; }
const char* ServerRevision() { return CADRE_REVISION; }

}  // namespace cadre
