import Glibc

extension Fault {
  /// /dev is read-only.
  static let devReadOnly = Fault("dev-read-only") { bed in
    let readOnly = "mount --bind /dev /dev && mount -o remount,bind,ro /dev"
    guard bed.settings.backend == .fuse else {
      // The kernel makes nodes of CUSE in its devtmpfs, independently of its mounts.
      try bed.check("/dev read-only: the daemon says that the node cannot be set up") {
        try bed.inside(status: 71, "\(readOnly) && \(TestBed.serve)")
        try bed.shows("\(bed.node): Read-only file system")
      }
      try bed.check("/dev read-only: nothing is left") { try bed.nothingLeft() }
      return
    }
    try bed.check("/dev read-only: the daemon does not start") {
      try bed.inside(status: 71, "\(readOnly) && \(TestBed.serve)")
    }
    try bed.check("/dev read-only: it says on which path, why, and what else there is") {
      try bed.shows(
        "cannot create \(bed.node): Read-only file system: choose a node that you may make: --path FILE"
      )
    }
    try bed.check("/dev read-only: nothing is left") { try bed.nothingLeft() }
    try bed.check("/dev read-only: with --path the device works") {
      try bed.inside(
        status: 0,
        readOnly
          + #" && "$daemon" serve --detach --path "$tmp/node" && printf J >"$tmp/node" && head -c 1 "$tmp/node" && "$daemon" stop --path "$tmp/node""#
      )
    }
    try bed.check("/dev read-only: with --path nothing is left") {
      try require(!exists("\(bed.temporary)/node"), "the node is left")
    }
  }

  /// There is no program fusermount3.
  static let noFusermount = Fault("no-fusermount", backends: [.fuse]) { bed in
    let prefix = "fusermount3 missing"
    // The user has a directory of its own without programs, and a /dev/fuse that users may open.
    try bed.check("\(prefix): preparations") {
      let preparations = try bed.shell(
        """
        set -e
        mkdir -m 777 "$tmp/user"
        cp "$(command -v setpriv)" "$tmp/setpriv"
        cp "$daemon" "$tmp/virt-walkerd"
        mknod -m 666 "$tmp/fuse" c 10 229
        chmod 711 "$tmp"
        """)
      try require(preparations.exit == .status(0), preparations.output)
    }
    try bed.check("\(prefix): an ordinary user is told so") {
      try bed.inside(
        status: 77,
        #"""
        mount --bind "$tmp/fuse" /dev/fuse && mount -t tmpfs tmpfs /usr/bin && cd "$tmp" &&
        export PATH=/usr/bin XDG_RUNTIME_DIR="$tmp/user" && exec ./setpriv --reuid=65534 --regid=65534 --clear-groups \
            ./virt-walkerd serve --detach --path "$tmp/user/node"
        """#)
      try bed.shows("fusermount3 (Debian package fuse3)")
    }
    try bed.check("\(prefix): nothing is left") {
      try require(
        rmdir("\(bed.temporary)/user") == 0, "\(bed.temporary)/user: \(errorText())")
    }
    try bed.check("\(prefix): root does not need it") {
      try bed.inside(
        status: 0,
        #"mount -t tmpfs tmpfs /usr/bin && "$daemon" serve --detach --name "$name" && "$daemon" stop --name "$name""#
      )
    }
  }

  /// `umount -l` of the tree, and of the node.
  static let unmount = Fault("unmount") { bed in
    let log = "\(bed.temporary)/log"
    func logSays(_ words: String) throws {
      let isSaid = try soon { readFile(log)?.contains(words) ?? false }
      try require(isSaid, "'\(words)' is not in:\n\(readFile(log) ?? "")")
    }
    func unmount(_ path: String) throws {
      let unmount = try bed.shell("umount -l '\(path)'")
      try require(unmount.exit == .status(0), unmount.output)
    }
    try bed.check("umount -l of the tree: the daemon starts") { try bed.start("--log-file", log) }
    try bed.startClients()
    try randomPause()
    try bed.check("umount -l of the tree: it is done") { try unmount(bed.tree) }
    try bed.check("umount -l of the tree: the log says that the node is served without") {
      try logSays(
        "\(bed.tree) was taken away from outside (umount): the node is served without a tree")
    }
    try bed.check("umount -l of the tree: the device works") { try bed.read() }
    if bed.settings.backend == .fuse {
      let prefix = "umount -l of the node under load"
      let server = try bed.server()
      try bed.check("\(prefix): it is done") { try unmount(bed.node) }
      try bed.check("\(prefix): the daemon ends") {
        try require(try soon { hasEnded(server) }, "it still runs")
      }
      try bed.check("\(prefix): ... and its log says why, and what to do") {
        try logSays(
          "\(bed.node) was taken away from outside (umount, or an abort of the connection): start again"
        )
      }
      try bed.check("\(prefix): each call ends with an error, and no byte is wrong") {
        try bed.waitForClients()
      }
      try bed.check("\(prefix): nothing is left") { try bed.nothingLeft() }
      try bed.check("umount -l of the node: the next start works") { try bed.start() }
    }
    try bed.check("umount -l: the daemon ends") { try bed.stop() }
    if bed.settings.backend == .cuse {
      try bed.check("umount -l of the tree: no call failed before") { try bed.waitForClients() }
    }
  }
}
