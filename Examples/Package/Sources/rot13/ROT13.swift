// A device whose read gives the text of the last write, with each letter moved by 13 places. The program makes its server and its loop by
// itself, as a program with its own options does.
//
//   swift run rot13 /tmp/rot13
//   echo Hello > /tmp/rot13; head -n 1 /tmp/rot13       # Uryyb, in another terminal
import CharacterDeviceServer
import SystemPackage

final class ROT13: SimpleDevice {
  private var text: [UInt8] = []

  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    let part = text.prefix(buffer.freeCapacity)
    for byte in part { buffer.append(byte) }
    text.removeFirst(part.count)
  }

  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    text = bytes.indices.map { rotated(bytes[$0]) }
    return bytes.count
  }

  private func rotated(_ byte: UInt8) -> UInt8 {
    switch byte | 0x20 {
    case UInt8(ascii: "a")...UInt8(ascii: "m"): byte + 13
    case UInt8(ascii: "n")...UInt8(ascii: "z"): byte - 13
    default: byte
    }
  }
}

@main
struct Main {
  static func main() throws {
    guard CommandLine.arguments.count == 2 else {
      print("usage: rot13 FILE")
      return
    }
    let path = FilePath(CommandLine.arguments[1])
    let application = Application(name: "rot13")
    // The signals come before the server, so that no signal leaves the node behind.
    let signals = try TerminationSignals()
    try FUSEServer.removeStale(at: path, of: application)
    let server = try FUSEServer(path: path, application: application, device: ROT13())
    defer { server.close() }

    let loop = try EventLoop()
    try loop.add(server) { result in
      // Somebody has unmounted the node.
      if result == .end { loop.stop() }
    }
    try loop.add(signals.descriptor) { loop.stop() }
    _ = try FileDescriptor.standardOutput.writeAll("\(path) is ready\n".utf8)
    try loop.run()
  }
}
