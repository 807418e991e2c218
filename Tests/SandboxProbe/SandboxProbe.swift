// Tries the operations that a server in its sandbox must be unable to do, and prints the result of each. The directory
// contains two empty files, `old` and `other`:
//
//   sandbox-probe DIRECTORY outside     without a sandbox
//   sandbox-probe DIRECTORY inside      in the sandbox, as nobody
//   sandbox-probe DIRECTORY landlock    with the Landlock part of the sandbox only
import CLinux
import Glibc

@testable import CharacterDeviceServer

@main
struct SandboxProbe {
  static func main() throws {
    let directory = CommandLine.arguments[1]
    // The sockets are open before the sandbox, as the socket to a keeper is.
    var ends: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
    switch CommandLine.arguments[2] {
    case "inside":
      try Sandbox.enter(as: Sandbox.User(name: "nobody", id: 65534, group: 65534))
    case "landlock":
      guard try Sandbox.denyFiles() != nil else { return print("this kernel has no Landlock") }
    default: break
    }

    attempt("thread", startThread)
    attempt("open") { open("/dev/zero", O_RDONLY) }
    attempt("mkdir") { mkdir("\(directory)/made", 0o700) }
    attempt("create") { open("\(directory)/file", O_CREAT | O_RDWR, 0o600) }
    attempt("rename") { rename("\(directory)/old", "\(directory)/new") }
    attempt("symlink") { symlink("/etc/passwd", "\(directory)/link") }
    attempt("unlink") { unlink("\(directory)/other") }
    attempt("mount") { mount("none", directory, "tmpfs", 0, nil) }
    attempt("umount") { umount2(directory, Int32(MNT_DETACH)) }
    attempt("socket") { socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0) }
    attempt("network") { socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) }
    attempt("fork") {
      // The output is flushed before fork, because with a sanitizer the child's _exit(2) writes the buffer that it has
      // from its parent.
      fflush(nil)
      let child = clinux_fork()
      if child == 0 { _exit(0) }
      return child
    }
    attempt("spawn") {
      var child = pid_t()
      let error = withArgumentVector(["/bin/true"]) {
        posix_spawn(&child, "/bin/true", nil, nil, $0, nil)
      }
      errno = error
      return error == 0 ? 0 : -1
    }
    attempt("signal") { kill(getppid(), 0) }
    attempt("code") {
      mmap(nil, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        == MAP_FAILED ? -1 : 0
    }
    attempt("limit") {
      var limit = rlimit()
      return getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    attempt("terminal") {
      var size = winsize()
      return ioctl(STDIN_FILENO, UInt(TIOCGWINSZ), &size) == 0 || errno == ENOTTY ? 0 : -1
    }
    // fcntl(2) can send signals and take locks.
    attempt("flags") { fcntl(ends[0], F_SETFL, fcntl(ends[0], F_GETFL) | O_NONBLOCK) }
    attempt("signal of a socket") { fcntl(ends[0], F_SETFL, CLINUX_O_ASYNC) }
    attempt("receiver of a signal") { fcntl(ends[0], F_SETOWN, getpid()) }
    attempt("kind of a signal") { fcntl(ends[0], CLINUX_F_SETSIG, SIGTERM) }
    attempt("lock") {
      var lock = Glibc.flock()
      lock.l_type = Int16(F_UNLCK)
      return fcntl(ends[0], F_SETLK, &lock) == 0 || errno != EPERM ? 0 : -1
    }
    attempt("lock of a file") { flock(ends[0], LOCK_UN) }
    attempt("duplicate") { fcntl(ends[0], F_DUPFD, 100) }
    attempt("groups") { setgroups(0, nil) }
    attempt("root") { setuid(0) }
  }

  private static func attempt(_ what: String, _ body: () -> Int32) {
    print("\(what):", body() >= 0 ? "works" : String(cString: strerror(errno)))
  }
}

/// A server in its sandbox can still start threads.
private func startThread() -> Int32 {
  var thread = pthread_t()
  errno = pthread_create(&thread, nil, { _ in nil }, nil)
  guard errno == 0 else { return -1 }
  return pthread_join(thread, nil)
}
