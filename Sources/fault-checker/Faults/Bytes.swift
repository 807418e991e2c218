import Glibc

extension Fault {
  /// No fault: the machine is busy, and clients are interrupted.
  static let bytes = Fault("bytes") { bed in
    let seconds = ["--seconds", "\(bed.settings.seconds)"]
    try bed.check("bytes: the daemon starts") { try bed.start() }
    try bed.check(
      "bytes: the first byte is 00, and none is lost or mixed up", ["--initial", "00"] + seconds)
    let busy = try (0..<3).map { _ in try bed.background("while :; do :; done") }
    defer { for child in busy { child.killGroup() } }
    try bed.check(
      "bytes: ... beside busy processes, with clients that are interrupted, and some that open the node each time",
      seconds + ["--reopen", "--interrupt", "--writers", "6", "--readers", "6"])
    for child in busy { child.killGroup() }
    try bed.check("bytes: the daemon ends") { try bed.stop() }
    try bed.check("bytes: a daemon of two nodes starts") { try bed.start("--count", "2") }
    try bed.check(
      "bytes: of two nodes, each has its own", bytesOf: "\(bed.node)0", ["\(bed.node)1"] + seconds)
    try bed.check("bytes: the daemon of two nodes ends") {
      try bed.endDaemon(name: "\(bed.name)0")
    }
    try bed.check("bytes: ... and leaves nothing") { try bed.nothingLeft() }
  }

  /// No fault: a thousand clients at once.
  static let manyClients = Fault("many-clients") { bed in
    try bed.check("1,000 clients: the daemon starts") { try bed.start() }
    try bed.check(
      "1,000 clients, of whom every second one opens and closes each time: no call fails, and no byte is wrong",
      ["--writers", "200", "--readers", "800", "--reopen", "--seconds", "\(bed.settings.seconds)"])
    try bed.check("1,000 clients: the daemon ends") { try bed.stop() }
  }
}
