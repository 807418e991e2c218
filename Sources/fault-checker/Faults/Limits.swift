import Glibc

extension Fault {
  /// Limits of open files: of the daemon, and of the whole system.
  static let descriptors = Fault("descriptors") { bed in
    for limit in [6, 12, 36] {
      try bed.check(
        "ulimit -n \(limit): the daemon says how many it needs, and where to allow them"
      ) {
        try require(try bed.startLimited("-n \(limit)").output, says: "ulimit -Hn 37")
      }
      try bed.check("ulimit -n \(limit): nothing is left") { try bed.nothingLeft() }
    }
    try bed.check("ulimit -n 37: the daemon starts") {
      let start = try bed.startLimited("-n 37")
      try require(start.hasStarted, start.output)
    }
    try bed.check(
      "ulimit -n 37: the device works", ["--seconds", "1", "--reopen", "--initial", "00"],
      figures: false)
    try bed.check("ulimit -n 37: the daemon ends") { try bed.stop() }
    try bed.check("ulimit -S -n 8: the daemon takes what it needs") {
      let start = try bed.startLimited("-S -n 8")
      try require(start.hasStarted, start.output)
    }
    try bed.check("ulimit -S -n 8: the device works") { try bed.writeAndRead("G") }
    try bed.check("ulimit -S -n 8: the daemon ends") { try bed.stop() }
    // A limit of the whole system would disturb other programs: only the virtual machine of CUSE gets it.
    guard bed.settings.backend == .cuse else { return }
    try bed.check("file-max: the daemon starts") { try bed.start("--mode", "0666") }
    let path = "/proc/sys/fs/file-max"
    let limit = readFile(path) ?? ""
    try writeFile(path, "1")
    let refused: Result<(exit: Exit, output: String), any Error>
    do {
      // The output is checked after the limit has its old value again.
      refused = .success(try bed.shell("su user -c \"head -c 1 $node\" 2>&1"))
    } catch {
      refused = .failure(error)
    }
    try bed.check("file-max: root, who may have more, is served") { try bed.writeAndRead("H") }
    try writeFile(path, limit)
    try bed.check("file-max: users' programs are told by the kernel") {
      try require(try refused.get().output, says: "open files")
    }
    try bed.check("file-max: no byte is wrong", ["--seconds", "1"], figures: false)
    try bed.check("file-max: the daemon ends") { try bed.stop() }
  }

  /// Limits of the daemon's address space.
  static let addressSpace = Fault("address-space") { bed in
    var starts = 0
    var refusals = 0
    var broken = 0
    var wrong: [String] = []
    for limit in [20_000, 30_000, 36_000, 40_000, 50_000, 100_000, 200_000] {
      do {
        let start = try bed.startLimited("-v \(limit)")
        if start.hasStarted {
          starts += 1
          // The daemon may run out of memory only now. Its clients get errors then, as after kill -9.
          try bed.startClients()
          _ = try bed.shell("cat \"$tree/trace\" \"$tree/stage2_page_tables\" >/dev/null 2>&1")
          try sleep(seconds: 0.2)
          do { try bed.endDaemon() } catch is Failed { broken += 1 }
          try bed.waitForClients()
        } else {
          refusals += 1
          try require(start.output.utf8.count > 50, "the daemon has printed no message")
        }
        // A daemon that runs out of memory before it has a keeper leaves files behind. The next start removes them.
        try bed.start()
        try bed.stop()
      } catch let failed as Failed {
        wrong.append("\(limit): \(failed)")
      }
    }
    bed.tap.comment(
      "ulimit -v: \(starts) starts, of which \(broken) daemons ended later, and \(refusals) refusals"
    )
    try bed.check(
      "ulimit -v: the daemon says that it cannot start, or ends later, and its clients get errors; the next start works"
    ) { try require(wrong.isEmpty, wrong.joined(separator: "\n")) }
    try bed.check("ulimit -v: both were seen") {
      try require(starts > 0 && refusals > 0, "\(starts) starts, \(refusals) refusals")
    }
  }
}
