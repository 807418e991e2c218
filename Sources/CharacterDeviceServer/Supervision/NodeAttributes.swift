import CLinux
import Glibc
import SystemPackage

/// The attributes of a node without an inode of its own, and the rights to it. They are those of a character device in /dev.
struct NodeAttributes {
  private(set) var status: Glibc.stat

  /// The device number: of the minor numbers of miscellaneous devices, the kernel gives 255 to none.
  static let number = (major: UInt32(10), minor: UInt32(255))

  /// - Parameter device: The device of the file system with the node's directory.
  init(_ access: NodeAccess, on device: dev_t) {
    // No file in a devtmpfs gets such a high number soon.
    status = fileAttributes(S_IFCHR | access.mode.rawValue, access, inode: 0x7657_616c)
    status.st_dev = device
    status.st_rdev = dev_t(Self.number.major << 8 | Self.number.minor)
  }

  /// The answer to statx(2).
  var extendedStatus: [UInt8] {
    withUnsafePointer(to: status) { status in
      [UInt8](unsafeUninitializedCapacity: CLINUX_STATX_SIZE) { buffer, count in
        clinux_make_statx(status, Self.number.major, Self.number.minor, buffer.baseAddress)
        count = CLINUX_STATX_SIZE
      }
    }
  }

  /// Whether a process may read (4), write (2) and execute (1) the node: the rules of `generic_permission` in the kernel.
  ///
  /// - Parameter asRealUser: Whether the real user of the process counts, as for access(2).
  func allows(
    _ wanted: UInt32, _ rights: CallerProcess.Rights, asRealUser: Bool = false
  ) -> Bool {
    let user = asRealUser ? rights.realUser : rights.user
    let group = asRealUser ? rights.realGroup : rights.group
    let shift: UInt32
    if user == status.st_uid {
      shift = 6
    } else if group == status.st_gid || rights.groups.contains(status.st_gid) {
      shift = 3
    } else {
      shift = 0
    }
    if status.st_mode >> shift & wanted == wanted { return true }
    // With the capability, a file can be executed only if it is a program of someone.
    guard wanted & 1 == 0 || status.st_mode & 0o111 != 0 else { return false }
    // For access(2), the kernel gives a real user other than root no capability.
    if asRealUser && rights.realUser != 0 { return false }
    return rights.has(CAP_DAC_OVERRIDE)
  }

  /// chmod(2)
  mutating func setMode(_ mode: UInt32, _ rights: CallerProcess.Rights) throws(Errno) {
    guard isOwner(rights) else { throw .notPermitted }
    status.st_mode = S_IFCHR | mode & 0o7777
    status.st_ctim = Self.now
  }

  /// chown(2): a number of -1 changes nothing.
  mutating func setOwner(
    _ user: UInt32, _ group: UInt32, _ rights: CallerProcess.Rights
  ) throws(Errno) {
    let isFree = rights.has(CAP_CHOWN)
    let keepsUser = user == .max || (user == status.st_uid && isOwner(rights))
    let keepsGroup =
      group == .max
      || (isOwner(rights) && (rights.group == group || rights.groups.contains(group)))
    guard isFree || (keepsUser && keepsGroup) else { throw .notPermitted }
    if user != .max { status.st_uid = user }
    if group != .max { status.st_gid = group }
    status.st_ctim = Self.now
  }

  /// utimensat(2): the times of the access and of the modification; nil for the present time.
  mutating func setTimes(
    _ times: (access: timespec, modification: timespec)?, _ rights: CallerProcess.Rights
  ) throws(Errno) {
    guard isOwner(rights) || (times == nil && allows(2, rights)) else {
      throw times == nil ? .permissionDenied : .notPermitted
    }
    let now = Self.now
    func set(_ time: inout timespec, _ new: timespec?) throws(Errno) {
      switch new?.tv_nsec {
      case nil, Self.utimeNow: time = now
      case Self.utimeOmit: break
      case .some(let nanoseconds):
        guard (0..<1_000_000_000).contains(nanoseconds), let new else { throw .invalidArgument }
        time = new
      }
    }
    try set(&status.st_atim, times?.access)
    try set(&status.st_mtim, times?.modification)
    status.st_ctim = now
  }

  /// UTIME_NOW
  private static let utimeNow = (1 << 30) - 1
  /// UTIME_OMIT
  private static let utimeOmit = (1 << 30) - 2

  private func isOwner(_ rights: CallerProcess.Rights) -> Bool {
    rights.user == status.st_uid || rights.has(CAP_FOWNER)
  }

  private static var now: timespec {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return now
  }
}
