// Serves one byte at one or more nodes, with a fault from time to time. node-checker has to find the fault.
//
// usage: faulty-device FAULT FILE...      (until SIGTERM)
//
//   none    no fault: the device works correctly
//   lose    a write returns success, and has no effect
//   mix     a write goes to the next node
//   invent  a read gives a byte that was not written to that node lately
//   stale   a read gives the byte before the last
//   empty   a read gives no byte, and no error
import CharacterDeviceServer
import Glibc
import SystemPackage

enum Fault: String { case none, lose, mix, invent, stale, empty }

final class FaultyDevice: SimpleDevice {
  private let fault: Fault
  /// The device that gets the writes that go to the wrong node.
  var other: FaultyDevice?
  private var byte: UInt8 = 0
  private var byteBefore: UInt8 = 0
  private var requests = 0

  init(_ fault: Fault) { self.fault = fault }

  /// One of some thousand requests has the fault, so a run of a second has a few faulty requests.
  private func isWrong(_ fault: Fault) -> Bool {
    guard fault == self.fault else { return false }
    requests += 1
    return requests % 3001 == 0
  }

  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    if isWrong(.empty) { return }
    buffer.append(isWrong(.stale) ? byteBefore : isWrong(.invent) ? byte &+ 128 : byte)
  }

  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    if isWrong(.mix), let other { other.take(bytes[0]) } else if !isWrong(.lose) { take(bytes[0]) }
    return 1
  }

  private func take(_ new: UInt8) {
    byteBefore = byte
    byte = new
  }
}

@main
struct Main {
  static func main() throws {
    let arguments = CommandLine.arguments
    guard arguments.count > 2, let fault = Fault(rawValue: arguments[1]) else {
      print("usage: faulty-device FAULT FILE...")
      exit(64)
    }
    let signals = try TerminationSignals()
    let devices = arguments.dropFirst(2).map { _ in FaultyDevice(fault) }
    for (index, device) in devices.enumerated() {
      device.other = devices[(index + 1) % devices.count]
    }
    let servers = try zip(arguments.dropFirst(2), devices).map {
      try FUSEServer(
        path: FilePath($0),
        application: Application(name: "faulty-device", fileSystem: "faulty_device"), device: $1)
    }
    defer { for server in servers { server.close() } }
    let loop = try EventLoop()
    for server in servers { try loop.add(server) { if $0 == .end { loop.stop() } } }
    try loop.add(signals.descriptor) { loop.stop() }
    try FileDescriptor.standardOutput.writeAll("ready\n".utf8)
    try loop.run()
    for device in devices { device.other = nil }
  }
}
