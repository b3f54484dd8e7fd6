#ifndef CADRE_SERVER_VERSION_H_
#define CADRE_SERVER_VERSION_H_

namespace cadre {

// "0.1.0".
const char* ServerVersion();
// Short hash of the source revision of this build; "unknown" when built outside a git tree.
const char* ServerRevision();

}  // namespace cadre

#endif  // CADRE_SERVER_VERSION_H_
