// A character device of your own in one file: it gives back what was written last, backwards.
//
//   swift run mirror /tmp/mirror                        # Ctrl-C ends it
//   echo -n hello > /tmp/mirror; cat /tmp/mirror        # olleh, in another terminal
import CharacterDeviceServer
import Glibc
import SystemPackage

final class Mirror: CharacterDevice {
  private var bytes: [UInt8] = []
  /// How many of them were read since the device was opened. A device is not told which of its clients reads: two that have it open
  /// at the same time share this.
  private var position = 0

  func open() throws(Errno) { position = 0 }

  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    let part = bytes[position...].prefix(buffer.freeCapacity)
    for byte in part { buffer.append(byte) }
    position = part.endIndex
  }

  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    guard bytes[0] != UInt8(ascii: "!") else { throw .invalidArgument }
    self.bytes = bytes.indices.reversed().map { bytes[$0] }
    position = 0
    return bytes.count
  }
}

@main
struct Main {
  static func main() {
    guard CommandLine.arguments.count == 2 else { fail("usage: mirror FILE") }
    do {
      try serve(FilePath(CommandLine.arguments[1]))
    } catch {
      fail("mirror: \(error)")
    }
  }

  static func serve(_ path: FilePath) throws {
    let signals = try TerminationSignals()
    try FUSEServer.removeStale(at: path, fileSystem: "mirror")
    let server = try FUSEServer(path: path, fileSystem: "mirror", device: Mirror())
    defer { server.close() }
    let loop = try EventLoop()
    try loop.add(server) { if $0 == .end { loop.stop() } }
    try loop.add(signals.descriptor) { loop.stop() }
    try FileDescriptor.standardOutput.writeAll("\(path) is ready\n".utf8)
    try loop.run()
  }

  static func fail(_ message: String) -> Never {
    _ = try? FileDescriptor.standardError.writeAll("\(message)\n".utf8)
    exit(1)
  }
}
