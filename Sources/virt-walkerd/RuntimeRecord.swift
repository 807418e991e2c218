import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// What a running daemon says of itself, in a file that it keeps locked: `status` and `stop` find it by that file, and
/// a second daemon for the same node is refused by the lock.
struct RuntimeRecord {
  var node: FilePath
  var backend: String
  var machine: String
  /// Where the inspection tree is; nil where there is none.
  var tree: FilePath?
  var pid: pid_t = getpid()

  /// `key=value` lines, for people and scripts.
  var text: String {
    "node=\(node)\nbackend=\(backend)\nmachine=\(machine)\n"
      + (tree.map { "tree=\($0)\n" } ?? "") + "pid=\(pid)\n"
  }

  init(node: FilePath, backend: String, machine: String, tree: FilePath?) {
    self.node = node
    self.backend = backend
    self.machine = machine
    self.tree = tree
  }

  private init?(parsing text: String) {
    // Root prints what a server wrote that is not root.
    guard !text.utf8.contains(where: { $0 < 0x20 && $0 != UInt8(ascii: "\n") || $0 == 0x7f })
    else { return nil }
    var values: [Substring: Substring] = [:]
    for line in text.split(separator: "\n") {
      let pair = line.split(separator: "=", maxSplits: 1)
      if pair.count == 2 { values[pair[0]] = pair[1] }
    }
    guard let node = values["node"], let pid = values["pid"].flatMap({ pid_t($0) }) else {
      return nil
    }
    self.init(
      node: FilePath(String(node)), backend: String(values["backend"] ?? "?"),
      machine: String(values["machine"] ?? "?"),
      tree: values["tree"].map { FilePath(String($0)) })
    self.pid = pid
  }

  /// The record in `file`, if it has one.
  fileprivate init?(_ file: FileDescriptor) {
    var bytes = [UInt8](repeating: 0, count: 8192)
    let count = try? bytes.withUnsafeMutableBytes {
      try file.read(fromAbsoluteOffset: 0, into: $0)
    }
    guard let count else { return nil }
    self.init(parsing: String(decoding: bytes.prefix(count), as: UTF8.self))
  }

  /// A record that was found, and whether its daemon still runs.
  struct Found {
    let record: RuntimeRecord
    let isRunning: Bool
  }

  /// The records of root's daemons and of the caller's own, by node.
  static func all() -> [Found] {
    Set([directory, systemDirectory]).flatMap { directory -> [Found] in
      guard let stream = opendir(directory.string) else { return [] }
      defer { closedir(stream) }
      var found: [Found] = []
      while let entry = readdir(stream) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) {
          String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        if !name.hasPrefix("."), let record = read(directory.appending(name)) {
          found.append(record)
        }
      }
      return found
    }.sorted { $0.record.node.string < $1.record.node.string }
  }

  /// The record of the daemon that serves `node`, or that was killed there.
  static func find(_ node: FilePath) -> Found? { all().first { $0.record.node == node } }

  /// The record of the daemon that serves `node` now.
  static func running(at node: FilePath) throws -> RuntimeRecord {
    guard let found = find(node), found.isRunning else {
      throw Failure(
        "nothing serves \(node): virt-walkerd status lists what runs", status: .unavailable)
    }
    return found.record
  }

  private static func read(_ path: FilePath) -> Found? {
    guard
      let file = try? FileDescriptor.open(path, .readOnly, options: [.noFollow, .closeOnExec])
    else { return nil }
    defer { try? file.close() }
    guard var record = RuntimeRecord(file) else { return nil }
    let server = lockHolder(file)
    // Root's stop ends the process that the kernel knows to hold the lock, not one that a server writes down.
    if let server { record.pid = server }
    return Found(record: record, isRunning: server != nil)
  }

  /// Where root's daemons keep their records.
  private static let systemDirectory: FilePath = "/run/virt-walkerd"

  /// Where the caller's daemons keep theirs.
  static var directory: FilePath {
    if geteuid() == 0 { return systemDirectory }
    if let base = getenv("XDG_RUNTIME_DIR"), access(base, W_OK) == 0 {
      return FilePath(platformString: base).appending("virt-walkerd")
    }
    return FilePath("/tmp/virt-walkerd-\(geteuid())")
  }

  /// The process that serves, by its lock on `file`; nil where none does.
  fileprivate static func lockHolder(_ file: FileDescriptor) -> pid_t? {
    var lock = flock(byte: .server)
    guard fcntl(file.rawValue, F_GETLK, &lock) == 0, lock.l_type != F_UNLCK else { return nil }
    return lock.l_pid
  }
}

extension flock {
  /// A byte of a record, locked for what it stands for.
  fileprivate enum Byte: Int {
    /// The node is served: held by the server until it ends.
    case server
    /// The node is in use: held by server and keeper, until the last of them ends.
    case node
  }

  /// A write lock as fcntl(2) takes it.
  fileprivate init(byte: Byte) {
    self.init()
    l_type = Int16(F_WRLCK)
    l_whence = Int16(SEEK_SET)
    l_start = off_t(byte.rawValue)
    l_len = 1
  }
}

/// The right to serve one node, held by this process and its keeper until both have ended, whatever way they end.
struct NodeLock {
  private let path: FilePath
  let file: FileDescriptor
  /// What a daemon said of itself that was killed with its keeper.
  let left: RuntimeRecord?

  /// - Throws: ``Failure`` where another daemon has it.
  init(_ node: FilePath) throws {
    let directory = RuntimeRecord.directory
    // One component for a whole path, and no two paths alike.
    path = directory.appending(
      node.string.dropFirst().map { ["/": "%2F", "%": "%25"][$0] ?? String($0) }.joined())
    // What a keeper has to do takes a moment.
    let pause: UInt32 = 10_000  // microseconds
    var pauses = 1000
    while true {
      guard mkdir(directory.string, 0o755) == 0 || errno == EEXIST else {
        throw Self.refused(.current, doing: "create", at: directory)
      }
      guard Self.isOwn(directory) else {
        throw Failure(
          "\(directory) belongs to somebody else: set XDG_RUNTIME_DIR to a directory of yours",
          status: .noPermission)
      }
      let descriptor = open(path.string, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
      // The last daemon to end took the directory away.
      if descriptor < 0 && errno == ENOENT { continue }
      guard descriptor >= 0 else {
        let errno = Errno.current
        rmdir(directory.string)
        throw Self.refused(errno, doing: "create", at: path)
      }
      let file = FileDescriptor(rawValue: descriptor)
      guard Self.lock(file) else {
        let server = RuntimeRecord.lockHolder(file)
        try? file.close()
        if let server {
          throw Failure(
            "\(node) is already served by pid \(server): virt-walkerd stop, or choose another --name or --path",
            status: .cannotCreate)
        }
        guard pauses > 0 else {
          throw Failure(
            "\(node) was served by a daemon that has ended, and its keeper still holds \(path): see what it waits for: fuser -v \(path)",
            status: .cannotCreate)
        }
        pauses -= 1
        usleep(pause)
        continue
      }
      if (try? FileIdentity(file)) == (try? FileIdentity(path)) {
        self.file = file
        left = RuntimeRecord(file)
        return
      }
      // The file was removed between open and lock, by the daemon that held it.
      try? file.close()
    }
  }

  /// Says what is served.
  func write(_ record: RuntimeRecord) throws {
    do {
      guard ftruncate(file.rawValue, 0) == 0 else { throw Errno.current }
      _ = try file.writeAll(toAbsoluteOffset: 0, record.text.utf8)
    } catch {
      throw Self.refused(error as? Errno ?? .ioError, doing: "write", at: path)
    }
  }

  private static func refused(
    _ errno: Errno, doing action: String, at path: FilePath
  ) -> Failure {
    let advice =
      switch errno {
      case .noSpace: "make room there: df and df -i say what is full"
      case .readOnlyFileSystem: "mount its file system writable"
      default: "make it writable for you"
      }
    return Failure(errno, doing: action, at: path, advice: advice)
  }

  /// Gives the node free. The file goes first: who opens it later makes a new one.
  func release() {
    unlink(path.string)
    rmdir(path.removingLastComponent().string)
    try? file.close()
  }

  private static func lock(_ file: FileDescriptor) -> Bool {
    // Of the open file, which a child shares; and of the process, which tells its pid and goes with it.
    var node = flock(byte: .node)
    var server = flock(byte: .server)
    return fcntl(file.rawValue, CLINUX_F_OFD_SETLK, &node) == 0
      && fcntl(file.rawValue, F_SETLK, &server) == 0
  }

  /// In /tmp anybody could have made it.
  private static func isOwn(_ directory: FilePath) -> Bool {
    var attributes = stat()
    return lstat(directory.string, &attributes) == 0
      ? attributes.st_uid == geteuid() && attributes.st_mode & S_IFMT == S_IFDIR
      : errno == ENOENT
  }
}
