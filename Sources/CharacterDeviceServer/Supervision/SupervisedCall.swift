import CLinux
import CSeccomp
import Glibc
import SystemPackage

/// The system calls that a ``SeccompServer`` gets from the processes of a command. The kernel executes all others by itself.
///
/// The node's open files are pipes. A call is not here if the kernel's answer for a pipe is right for a character device: mmap (ENODEV),
/// ftruncate and copy_file_range (EINVAL), poll, epoll_wait, dup, flock and others.
enum SupervisedCall: String, CaseIterable {
  // Calls with the path of a file.
  case open, openat, openat2, creat, execve, execveat
  case stat, lstat, newfstatat, statx, access, faccessat, faccessat2, readlink, readlinkat, statfs
  case truncate, chmod, fchmodat, fchmodat2, chown, lchown, fchownat
  case utime, utimes, futimesat, utimensat
  case unlink, unlinkat, rmdir, rename, renameat, renameat2, link, linkat, symlink, symlinkat
  case mkdir, mkdirat, mknod, mknodat, chdir, chroot
  case setxattr, lsetxattr, getxattr, lgetxattr, listxattr, llistxattr, removexattr, lremovexattr
  case inotifyAddWatch = "inotify_add_watch"
  case nameToHandleAt = "name_to_handle_at"

  // Calls with a descriptor.
  case read, write, readv, writev, pread64, pwrite64, preadv, pwritev, preadv2, pwritev2
  case ioctl, lseek, fstat, fsync, fdatasync, fallocate, fadvise64
  case sendfile, splice, tee, vmsplice
  case fchmod, fchown
  case fcntl
  case epollControl = "epoll_ctl"
  case ioSubmit = "io_submit"
}

/// The filter of a command, and the numbers of the calls in it.
struct CallFilter {
  /// The filter as the kernel takes it: instructions of BPF.
  let program: [UInt8]
  /// The calls by their numbers.
  private let calls: [Entry?]

  struct Entry {
    let call: SupervisedCall
    let paths: [SupervisedCall.PathArgument]
  }

  func call(_ number: Int32) -> Entry? {
    calls.indices.contains(Int(number)) ? calls[Int(number)] : nil
  }

  /// Makes the filter for calls of this machine's architecture. Calls of others, such as those of 32-bit programs, are not in it.
  init() throws(Errno) {
    var calls: [Entry?] = []
    guard let filter = seccomp_init(CSECCOMP_ALLOW) else { throw .noMemory }
    defer { seccomp_release(filter) }
    // A binary search in place of a list, and no signal for another architecture.
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2)
    seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, CSECCOMP_ALLOW)
    func add(_ action: UInt32, _ number: Int32, _ conditions: [scmp_arg_cmp] = []) throws(Errno) {
      let result = seccomp_rule_add_array(
        filter, action, number, UInt32(conditions.count), conditions)
      guard result == 0 else { throw Errno(rawValue: -result) }
    }
    for call in SupervisedCall.allCases {
      let number = seccomp_syscall_resolve_name(call.rawValue)
      // This architecture has no such call, or this libseccomp does not know it.
      guard number >= 0 else { continue }
      while calls.count <= Int(number) { calls.append(nil) }
      calls[Int(number)] = Entry(call: call, paths: call.paths)
      guard let commands = call.commands else {
        try add(CSECCOMP_NOTIFY, number)
        continue
      }
      for command in commands {
        try add(
          CSECCOMP_NOTIFY, number,
          [
            scmp_arg_cmp(
              arg: 1, op: SCMP_CMP_MASKED_EQ, datum_a: UInt64(UInt32.max),
              datum_b: UInt64(command))
          ])
      }
    }
    // A ring would read and write the pipe in the place of the device. Programs go on with other calls, as in most containers.
    let ring = seccomp_syscall_resolve_name("io_uring_setup")
    if ring >= 0 { try add(CSECCOMP_NO_SUCH_CALL, ring) }
    self.calls = calls
    program = try Self.export(filter)
  }

  private static func export(_ filter: scmp_filter_ctx) throws(Errno) -> [UInt8] {
    let file = clinux_make_file_in_memory("filter")
    guard file >= 0 else { throw .current }
    defer { close(file) }
    let result = seccomp_export_bpf(filter, file)
    guard result == 0 else { throw Errno(rawValue: -result) }
    let size = lseek(file, 0, Int32(SEEK_END))
    var bytes = [UInt8](repeating: 0, count: Int(max(size, 0)))
    guard pread(file, &bytes, bytes.count, 0) == bytes.count else { throw .ioError }
    return bytes
  }
}

extension SupervisedCall {
  /// The values of the second argument with which the call comes to the server; nil for all values.
  fileprivate var commands: [Int32]? {
    switch self {
    // The commands that are not the same on a pipe.
    case .fcntl: [F_SETFL, Self.setPipeSize, Self.getPipeSize]
    case .epollControl: [EPOLL_CTL_ADD]
    default: nil
    }
  }

  /// F_SETPIPE_SZ
  static let setPipeSize: Int32 = 1031
  /// F_GETPIPE_SZ
  static let getPipeSize: Int32 = 1032

  /// The place of a path among the arguments of a call.
  struct PathArgument {
    /// The argument with the descriptor of the directory; nil for the working directory.
    var directory: Int?
    var path: Int
    var follows = Follows.always
  }

  /// Whether a call follows a symbolic link at the end of the path.
  enum Follows {
    case always, never
    /// The call follows the link if an argument does not have a flag.
    case unless(argument: Int, flag: Int32)
    /// The call follows the link if an argument has a flag.
    case onlyIf(argument: Int, flag: Int32)
  }

  /// The paths of the call; none for a call with a descriptor only.
  fileprivate var paths: [PathArgument] {
    switch self {
    case .open: [.init(path: 0, follows: .unless(argument: 1, flag: O_NOFOLLOW))]
    case .openat:
      [.init(directory: 0, path: 1, follows: .unless(argument: 2, flag: O_NOFOLLOW))]
    case .openat2: [.init(directory: 0, path: 1)]
    case .execveat: [.init(directory: 0, path: 1, follows: .unlessNoFollow(4))]
    case .creat, .execve, .stat, .access, .statfs, .truncate, .chmod, .chown, .utime, .utimes,
      .chdir, .chroot, .setxattr, .getxattr, .listxattr, .removexattr:
      [.init(path: 0)]
    case .lstat, .readlink, .lchown, .unlink, .rmdir, .mkdir, .mknod, .lsetxattr, .lgetxattr,
      .llistxattr, .lremovexattr:
      [.init(path: 0, follows: .never)]
    case .newfstatat: [.init(directory: 0, path: 1, follows: .unlessNoFollow(3))]
    case .statx: [.init(directory: 0, path: 1, follows: .unlessNoFollow(2))]
    case .faccessat, .fchmodat, .futimesat: [.init(directory: 0, path: 1)]
    case .faccessat2, .fchmodat2, .utimensat:
      [.init(directory: 0, path: 1, follows: .unlessNoFollow(3))]
    case .fchownat: [.init(directory: 0, path: 1, follows: .unlessNoFollow(4))]
    case .readlinkat, .unlinkat, .mkdirat, .mknodat:
      [.init(directory: 0, path: 1, follows: .never)]
    case .rename: [.init(path: 0, follows: .never), .init(path: 1, follows: .never)]
    case .link: [.init(path: 0, follows: .never), .init(path: 1, follows: .never)]
    case .renameat, .renameat2:
      [
        .init(directory: 0, path: 1, follows: .never),
        .init(directory: 2, path: 3, follows: .never),
      ]
    case .linkat:
      [
        .init(
          directory: 0, path: 1,
          follows: .onlyIf(argument: 4, flag: FileFlags.followLink)),
        .init(directory: 2, path: 3, follows: .never),
      ]
    case .symlink: [.init(path: 1, follows: .never)]
    case .symlinkat: [.init(directory: 1, path: 2, follows: .never)]
    case .inotifyAddWatch: [.init(path: 1)]
    case .nameToHandleAt:
      [
        .init(
          directory: 0, path: 1,
          follows: .onlyIf(argument: 4, flag: FileFlags.followLink))
      ]
    default: []
    }
  }
}

extension SupervisedCall.Follows {
  fileprivate static func unlessNoFollow(_ argument: Int) -> Self {
    .unless(argument: argument, flag: FileFlags.noFollowLink)
  }

  /// Whether `notification` follows the link.
  func holds(in notification: Notification) -> Bool {
    switch self {
    case .always: true
    case .never: false
    case .unless(let argument, let flag): notification.int(argument) & flag == 0
    case .onlyIf(let argument, let flag): notification.int(argument) & flag != 0
    }
  }
}

/// Flags of calls that Swift's Glibc module lacks: linux/fcntl.h.
enum FileFlags {
  /// AT_SYMLINK_NOFOLLOW
  static let noFollowLink: Int32 = 0x100
  /// AT_SYMLINK_FOLLOW
  static let followLink: Int32 = 0x400
  /// AT_EMPTY_PATH
  static let emptyPath: Int32 = 0x1000
  /// AT_EACCESS
  static let effectiveAccess: Int32 = 0x200
}
