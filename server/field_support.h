// Which fields of the API this release acts on. A request that sets any other field is refused with the field's name:
// what the table does not list is refused, so that a field added to the protos later cannot be ignored by accident.
#ifndef CADRE_SERVER_FIELD_SUPPORT_H_
#define CADRE_SERVER_FIELD_SUPPORT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace google::protobuf {
class Message;
}

namespace cadre {

// UNIMPLEMENTED, naming each field of `request` that is set and not supported, as a path ("sampling.n"). A field that
// is set to the value that changes nothing (n = 1, a penalty of 0) passes. `request` is any request of package
// cadre.v1.
absl::Status RefuseUnsupportedFields(const google::protobuf::Message& request);

// UNIMPLEMENTED, naming `fields`, and saying whether there were more. REQUIRES: not empty.
absl::Status UnsupportedFields(std::vector<std::string> fields, bool has_more = false);

// Paths of GenerateRequest that are supported, for GetModel.
std::vector<std::string> SupportedGenerateFields();

}  // namespace cadre

#endif  // CADRE_SERVER_FIELD_SUPPORT_H_
