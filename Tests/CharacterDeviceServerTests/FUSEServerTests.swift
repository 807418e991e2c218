import CharacterDeviceServer
import Foundation
import Glibc
import SystemPackage
import Testing

/// A device of a library's user: it gives what was written last, backwards, then end of file.
private final class Mirror: CharacterDevice {
  private var bytes: [UInt8] = []
  private var isAtEnd = false

  func open() throws(Errno) {
    if bytes == Array("closed".utf8.reversed()) { throw .resourceBusy }
  }

  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    isAtEnd.toggle()
    guard isAtEnd else { return }
    for byte in bytes.prefix(buffer.freeCapacity) { buffer.append(byte) }
  }

  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    guard bytes[0] != UInt8(ascii: "!") else { throw .invalidArgument }
    self.bytes = bytes.indices.reversed().map { bytes[$0] }
    return bytes.count
  }
}

/// A served node, on a thread of its own as any server has it.
private final class Served: @unchecked Sendable {
  let path: FilePath
  private let stop: (readEnd: FileDescriptor, writeEnd: FileDescriptor)
  private let done = DispatchSemaphore(value: 0)
  private var error: (any Error)?

  init(_ path: FilePath) throws {
    self.path = path
    stop = try FileDescriptor.pipe()
    let ready = DispatchSemaphore(value: 0)
    Thread { [self] in
      do {
        let server = try FUSEServer(path: path, fileSystem: "mirror", device: Mirror())
        let loop = try EventLoop()
        try loop.add(server.descriptor) {
          if try !server.process() { loop.stop() }
        }
        try loop.add(stop.readEnd) { loop.stop() }
        ready.signal()
        try loop.run()
        server.close()
        server.close()
      } catch {
        self.error = error
        ready.signal()
      }
      done.signal()
    }.start()
    ready.wait()
    if let error { throw error }
  }

  func end() throws {
    try stop.writeEnd.close()
    done.wait()
    try stop.readEnd.close()
    if let error { throw error }
  }
}

@Suite struct FUSEServerTests {
  private let path: FilePath

  init() {
    path = FilePath("/tmp/virt-walker-test-\(UUID().uuidString)")
  }

  @Test func deviceOfAnyKindIsServed() throws {
    let served = try Served(path)
    let file = try FileDescriptor.open(path, .readWrite)
    #expect(try file.writeAll("hello".utf8) == 5)
    var buffer = [UInt8](repeating: 0, count: 100)
    let first = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
    #expect(String(decoding: buffer.prefix(first), as: UTF8.self) == "olleh")
    #expect(try buffer.withUnsafeMutableBytes { try file.read(into: $0) } == 0)
    #expect(throws: Errno.invalidArgument) { try file.writeAll("!".utf8) }
    try file.writeAll("closed".utf8)
    #expect(throws: Errno.resourceBusy) { try FileDescriptor.open(path, .readOnly) }
    try file.close()
    try served.end()
    #expect(access(path.string, F_OK) != 0)
  }

  /// A client that keeps the node open neither holds it up nor hangs.
  @Test func closingWithAClientLeavesNothing() throws {
    let served = try Served(path)
    let file = try FileDescriptor.open(path, .readWrite)
    try served.end()
    #expect(access(path.string, F_OK) != 0)
    #expect(throws: Errno.self) { try file.writeAll("x".utf8) }
    // The connection is gone, and close(2) says so.
    try? file.close()
  }

  @Test func whatIsThereStays() throws {
    let file = try FileDescriptor.open(
      path, .writeOnly, options: [.create], permissions: [.ownerReadWrite])
    try file.closeAfter { _ = try file.writeAll("mine".utf8) }
    let error = #expect(throws: NodeError.self) { try Served(path) }
    #expect(error?.kind == .exists)
    #expect(error?.description.contains("rm \(path)") == true)
    #expect(try String(contentsOfFile: path.string, encoding: .utf8) == "mine")
    unlink(path.string)
  }

  @Test func aliveMountIsNotTakenForAStaleOne() throws {
    let served = try Served(path)
    let error = #expect(throws: NodeError.self) { try Served(path) }
    #expect(error?.kind == .exists)
    #expect(try FileDescriptor.open(path, .writeOnly).closeAfter { true })
    try served.end()
  }

  @Test func directoryThatDoesNotExistIsNamed() throws {
    let error = #expect(throws: NodeError.self) { try Served(path.appending("node")) }
    #expect(error?.description.hasPrefix("cannot ") == true)
    #expect(error?.description.contains(path.string) == true)
  }

  @Test func cuseSaysWhatToDoWhereItIsMissing() {
    let name = path.lastComponent!.string
    guard access("/dev/cuse", F_OK) != 0 else {
      #expect(throws: Never.self) { try CUSEServer(name: name, device: Mirror()).close() }
      return
    }
    let error = #expect(throws: NodeError.self) {
      try CUSEServer(name: name, device: Mirror())
    }
    #expect(
      error?.description
        == "/dev/cuse is missing: modprobe cuse, or run with --backend fuse")
  }
}
