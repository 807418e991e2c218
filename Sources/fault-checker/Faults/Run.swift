import Glibc

extension Fault {
  /// /run is read-only.
  static let runReadOnly = Fault("run-read-only") { bed in
    try bed.check("/run read-only: the daemon does not start") {
      try bed.inside(status: 73, "mount -t tmpfs -o ro tmpfs /run && \(TestBed.serve)")
    }
    try bed.check("/run read-only: it says on which path") {
      try bed.shows("cannot create /run/virt-walkerd: Read-only file system")
    }
    try bed.check("/run read-only: nothing is left") { try bed.nothingLeft() }
  }

  /// /run is full of files or of data, or another disk with files of the daemon is full.
  static let runFull = Fault("run-full") { bed in
    let serve = TestBed.serve
    let left = #"for file in /run/* "$node"; do [ ! -e "$file" ] || echo "left: $file"; done"#
    for files in 1...4 {
      try bed.check("/run full (\(files)): the daemon does not start") {
        try bed.inside(
          status: 0,
          "mount -t tmpfs -o nr_inodes=\(files) tmpfs /run && { \(serve); echo status $?; \(left); }"
        )
      }
      try bed.check("/run full (\(files)): its exit status is EX_CANTCREAT") {
        try bed.shows("status 73")
      }
      try bed.check("/run full (\(files)): it says on which path") {
        try bed.shows("cannot create /run/virt-walkerd")
      }
      try bed.check("/run full (\(files)): ... why, and what shows it") {
        try bed.shows("No space left on device: make room there: df")
      }
      try bed.check("/run full (\(files)): nothing is left") { try bed.showsNot("left: ") }
    }
    try bed.check("/run full (5): the daemon starts") {
      try bed.inside(
        status: 0,
        "mount -t tmpfs -o nr_inodes=5 tmpfs /run && \(serve)"
          + #" && printf I >"$node" && head -c 1 "$node" && "$daemon" stop --name "$name""#)
    }
    try bed.check("/run full (5): ... and says why there is no tree") {
      try bed.shows("no inspection tree: cannot create \(bed.tree): No space left on device")
    }
    try bed.check("/run full of data: the daemon does not start") {
      try bed.inside(
        status: 0,
        "mount -t tmpfs -o size=4k tmpfs /run && head -c 4096 /dev/zero >/run/full && { \(serve); rm /run/full; \(left); }"
      )
    }
    try bed.check("/run full of data: it says on which path") {
      try bed.shows("cannot write /run/virt-walkerd/dev%2F\(bed.name): No space left on device")
    }
    try bed.check("/run full of data: nothing is left") { try bed.showsNot("left: ") }

    let full = "\(bed.temporary)/full"
    let mountFull = "mkdir \(full) && mount -t tmpfs -o size=4k tmpfs \(full)"
    try bed.check("a pid file on a full disk: the daemon does not start") {
      try bed.inside(
        status: 0,
        "\(mountFull) && head -c 4096 /dev/zero >\(full)/full && { \(serve) --pid-file \(full)/pid; ls \(full); }"
      )
    }
    try bed.check("a pid file on a full disk: it says on which path") {
      try bed.shows("cannot write \(full)/pid: No space left on device")
    }
    try bed.check("a pid file on a full disk: none is left") { try bed.showsNot("\npid\n") }
    rmdir(full)
    try bed.check("a log on a full disk: the device works on") {
      try bed.inside(
        status: 0,
        "\(mountFull) && \(serve) --log-level info --log-file \(full)/log && "
          + #"head -c 1000 "$node" | wc -c && "$daemon" stop --name "$name""#)
    }
    try bed.check("a log on a full disk: ... with each byte") { try bed.shows("1000") }
    rmdir(full)
    try bed.check("/run full: nothing is left") { try bed.nothingLeft() }
  }
}
