// libfuse's loops, which both references use.
#include <fuse_lowlevel.h>

static int run_loop(struct fuse_session *session, int is_threaded)
{
    struct fuse_loop_config *configuration;
    int result;

    if (!is_threaded)
        return fuse_session_loop(session);
    configuration = fuse_loop_cfg_create();
    result = fuse_session_loop_mt(session, configuration);
    fuse_loop_cfg_destroy(configuration);
    return result;
}
