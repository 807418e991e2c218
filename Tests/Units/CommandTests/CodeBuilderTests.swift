import CharacterDeviceServer
import DaemonSupport
import Foundation
import Glibc
import SystemPackage
import Testing

@testable import UserCode

/// Tests of the code builder with the program that does its work, without a daemon.
@Suite(.timeLimit(.minutes(5))) struct CodeBuilderTests {
  private func sources() -> CodeSources {
    var sources = CodeSources()
    sources.hook = "\(repository)/Examples/lab/right/walk-callback.c"
    sources.hookFunction = "virt_walker_mmio"
    return sources
  }

  private func builder() throws -> CodeBuilderClient {
    try CodeBuilderClient(sources(), user: nil, program: daemonProgram)
  }

  /// A taken-over server cannot end other processes by its builder.
  @Test func builderEndsOnlyItsChildren() throws {
    let builder = try builder()
    defer { builder.finish() }
    let other = Process()
    other.executableURL = URL(fileURLWithPath: "/bin/sleep")
    other.arguments = ["1000"]
    try other.run()
    // The program can have SIGTERM blocked, as the thread of this test.
    defer {
      kill(other.processIdentifier, SIGKILL)
      other.waitUntilExit()
    }
    let started = try builder.start(.hook)
    for process in [other.processIdentifier, getpid(), getppid(), 0, 1, -1, -started.process] {
      _ = builder.end(process)
    }
    #expect(other.isRunning)
    #expect(kill(started.process, 0) == 0)
    #expect(builder.end(started.process) == .killed(signal: SIGKILL))
    #expect(kill(started.process, 0) == -1)
    // A process that has ended is not a child any more.
    #expect(builder.places(of: [0x400000], in: started.process) == [[]])
    try started.memory.close()
    try started.socket.close()
  }

  @Test func memoryCannotBeMadeSmaller() throws {
    let builder = try builder()
    defer { builder.finish() }
    let started = try builder.start(.hook)
    let tables = try builder.makeTableMemory(size: 1 << 20)
    for memory in [started.memory, tables] {
      #expect(ftruncate(memory.rawValue, 0) == -1 && errno == EPERM)
      #expect(ftruncate(memory.rawValue, 1 << 30) == -1 && errno == EPERM)
    }
    #expect(try tables.seek(offset: 0, from: .end) == 1 << 20)
    #expect(throws: CodeFailure.self) { try builder.makeTableMemory(size: 0) }
    #expect(throws: CodeFailure.self) { try builder.makeTableMemory(size: .max) }
    #expect(throws: CodeFailure.self) { try builder.start(.module) }
    for descriptor in [tables, started.memory, started.socket] { try descriptor.close() }
  }

  @Test func endOfTheBuilderEndsTheCode() throws {
    let builder = try builder()
    let started = try builder.start(.hook)
    builder.finish()
    #expect(kill(started.process, 0) == -1)
    var byte: UInt8 = 0
    #expect(read(started.socket.rawValue, &byte, 1) == 0)
    #expect(throws: CodeFailure.self) { try builder.start(.hook) }
    try started.memory.close()
    try started.socket.close()
  }

  @Test func wrongMessagesAreRefused() throws {
    #expect(BuilderConfiguration(SocketMessage(["configure"])) == nil)
    let message = BuilderConfiguration(sources(), user: nil).message
    #expect(BuilderConfiguration(message)?.sources == sources())
    for count in 1..<message.fields.count {
      #expect(BuilderConfiguration(SocketMessage(Array(message.fields.prefix(count)))) == nil)
    }
  }
}
