// The files of server/page, as the build put them into the program.
#ifndef CADRE_SERVER_EXPERTS_PAGE_H_
#define CADRE_SERVER_EXPERTS_PAGE_H_

#include <string_view>

namespace cadre {

extern const std::string_view kExpertsHtml;
extern const std::string_view kExpertsCss;
extern const std::string_view kExpertsJs;

}  // namespace cadre

#endif  // CADRE_SERVER_EXPERTS_PAGE_H_
