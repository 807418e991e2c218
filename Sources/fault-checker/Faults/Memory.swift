import Glibc

extension Fault {
  /// No fault: resident memory and open descriptors, before and after each of ten rounds of writes and reads of one byte.
  static let memory = Fault("memory") { bed in
    let rounds = 10
    try bed.check("memory: the daemon starts") { try bed.start() }
    let server = try bed.server()
    func kib(_ field: String) -> Int {
      let line = readLines("/proc/\(server)/status").first { $0.hasPrefix("\(field):") }
      return Int((line ?? "").filter(\.isNumber)) ?? 0
    }
    func figures(_ operations: Int) {
      bed.tap.comment(
        "\(operations) operations: \(kib("VmRSS")) KiB resident, \(bed.openDescriptors(of: server)) descriptors"
      )
    }
    // The first requests touch pages that all later requests use, and fill the rings of trace and logs.
    _ = try bed.shell("head -c 5000 \"$node\" >/dev/null")
    let before = (resident: kib("VmRSS"), descriptors: bed.openDescriptors(of: server))
    figures(0)
    var halfData = 0
    let count = bed.settings.operations / rounds / 2
    try bed.check("memory: \(count * rounds * 2) writes and reads succeed") {
      for round in 1...rounds {
        // Each byte of dd is one system call on the node, and one request to the daemon.
        let moved = try bed.shell(
          "dd if=/dev/zero of=\"$node\" bs=1 count=\(count) && dd if=\"$node\" of=/dev/null bs=1 count=\(count)",
          seconds: 60 + Double(count) / 100)
        try require(
          moved.exit == .status(0),
          "the device failed after \((round - 1) * count * 2) operations:\n\(moved.output)")
        if round == rounds / 2 { halfData = kib("RssAnon") }
        figures(round * count * 2)
      }
    }
    // Code and threads take their memory once, when they are first used. A leak in every operation also grows the memory in the
    // second half: a leak of 64 bytes was 31 MiB after half a million operations. One page of noise is allowed for each round.
    let grown = kib("RssAnon") - halfData
    bed.tap.comment(
      "resident memory grew by \(kib("VmRSS") - before.resident) KiB, data by \(grown) KiB in the second half"
    )
    try bed.check("memory: data grows by less than a page a round in the second half") {
      try require(halfData > 0 && grown <= 4 * rounds / 2, "it grew by \(grown) KiB")
    }
    try bed.check("memory: no descriptor was left open") {
      let isAsBefore = try soon { bed.openDescriptors(of: server) == before.descriptors }
      try require(
        isAsBefore, "\(bed.openDescriptors(of: server)), and \(before.descriptors) before")
    }
    try bed.check("memory: the daemon ends") { try bed.stop() }
  }
}
