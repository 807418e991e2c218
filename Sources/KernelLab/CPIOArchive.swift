/// An archive in the format `newc` of cpio, which the kernel unpacks as its first file system.
struct CPIOArchive {
  private(set) var bytes: [UInt8] = []
  private var inode: UInt32 = 0

  /// The kinds of files, as in the mode of stat(2).
  private enum Kind: UInt32 {
    case directory = 0o040000
    case file = 0o100000
    case link = 0o120000
    case characterDevice = 0o020000
  }

  mutating func addDirectory(_ name: String) { add(name, .directory, 0o755) }

  mutating func addFile(_ name: String, _ content: [UInt8], mode: UInt32 = 0o644) {
    add(name, .file, mode, content)
  }

  mutating func addLink(_ name: String, to target: String) {
    add(name, .link, 0o777, Array(target.utf8))
  }

  mutating func addCharacterDevice(_ name: String, major: UInt32, minor: UInt32, mode: UInt32) {
    add(name, .characterDevice, mode, device: (major, minor))
  }

  /// Ends the archive. The kernel wants a length that is a multiple of 4.
  mutating func finish() {
    addHeader("TRAILER!!!", mode: 0, inode: 0, size: 0, device: (0, 0))
    pad()
  }

  private mutating func add(
    _ name: String, _ kind: Kind, _ mode: UInt32, _ content: [UInt8] = [],
    device: (UInt32, UInt32) = (0, 0)
  ) {
    inode += 1
    addHeader(
      name, mode: kind.rawValue | mode, inode: inode, size: UInt32(content.count), device: device)
    bytes += content
    pad()
  }

  private mutating func addHeader(
    _ name: String, mode: UInt32, inode: UInt32, size: UInt32, device: (UInt32, UInt32)
  ) {
    bytes += "070701".utf8
    // The owner is root, and the time is 0, so that the same files make the same archive.
    let links: UInt32 = 1
    let fields: [UInt32] = [
      inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, UInt32(name.utf8.count + 1), 0,
    ]
    for field in fields {
      let digits = String(field, radix: 16)
      bytes += String(repeating: "0", count: 8 - digits.count).utf8
      bytes += digits.utf8
    }
    bytes += name.utf8
    bytes.append(0)
    pad()
  }

  private mutating func pad() {
    while bytes.count % 4 != 0 { bytes.append(0) }
  }
}
