import Glibc

extension Fault {
  /// The memory limit of a cgroup.
  static let cgroup = Fault("cgroup") { bed in
    var group: MemoryCgroup?
    try bed.check("cgroup: one with a memory controller can be made") {
      group = try MemoryCgroup(name: bed.name, temporary: bed.temporary)
      bed.cgroup = group?.path
    }
    guard let group else { return }
    try bed.check("cgroup: the daemon starts in it") { try bed.start(inCgroup: group.path) }
    try bed.check("cgroup: the device works", ["--seconds", "1"], figures: false)
    try bed.check(
      "cgroup: at the limit of its memory the kernel kills the daemon: its clients get errors"
    ) { try bed.exhaust(group) }
    try bed.check("cgroup: nothing is left") { try bed.nothingLeft() }
    try bed.check("cgroup: all processes have ended") {
      try require(try soon { rmdir(group.path) == 0 }, "\(group.path): \(errorText())")
      bed.cgroup = nil
    }
    umount("\(bed.temporary)/cgroup")
    try bed.check("cgroup: the next start, without the limit, works") { try bed.start() }
    try bed.check("cgroup: ... and ends") { try bed.stop() }
  }
}

/// A cgroup of this program, whose memory can be limited.
private struct MemoryCgroup {
  let path: String
  let limit: String
  let usage: String

  init(name: String, temporary: String) throws {
    let mounts = readLines("/proc/mounts").map { $0.split(separator: " ") }
      .filter { $0.count > 3 }
    let directory: String
    let isFirstVersion: Bool
    if let mount = mounts.first(where: {
      $0[2] == "cgroup" && $0[3].split(separator: ",").contains("memory")
    }) {
      directory = String(mount[1])
      isFirstVersion = true
    } else {
      isFirstVersion = false
      if let mount = mounts.first(where: { $0[2] == "cgroup2" }) {
        directory = String(mount[1])
      } else {
        directory = "\(temporary)/cgroup"
        try require(
          mkdir(directory, 0o755) == 0 && mount("cgroup2", directory, "cgroup2", 0, nil) == 0,
          "cannot mount cgroup2: \(errorText())")
      }
      try writeFile("\(directory)/cgroup.subtree_control", "+memory")
    }
    path = "\(directory)/\(name)"
    limit = "\(path)/\(isFirstVersion ? "memory.limit_in_bytes" : "memory.max")"
    usage = "\(path)/\(isFirstVersion ? "memory.usage_in_bytes" : "memory.current")"
    try require(mkdir(path, 0o755) == 0, "cannot create \(path): \(errorText())")
    try require(access(limit, W_OK) == 0, "cannot write \(limit): \(errorText())")
  }
}

extension TestBed {
  /// Limits the daemon to less memory than its readers need together.
  fileprivate func exhaust(_ group: MemoryCgroup) throws {
    let server = try server()
    try startClients()
    let used = Int((readFile(group.usage) ?? "").filter(\.isNumber)) ?? 0
    try writeFile(group.limit, "\(used + 500_000)")
    for _ in 0..<10 {
      _ = try background("exec <\"$tree/trace\" || exit; head -c 1; sleep 2")
    }
    try waitForClients()
    try require(try soon { hasEnded(server) }, "the kernel has not killed the daemon")
  }
}
