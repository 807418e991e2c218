import Foundation
import SystemPackage
import Testing

@testable import virt_walkerd

/// Tests of the process that builds changed files for a real kernel.
@Suite struct SourceWatcherTests {
  @Test(arguments: [1, 8, 9, 10, 1000])
  func messagesComeInParts(size: Int) {
    let sent: [SourceWatcher.Message] = [
      .built([1, 2, 3]), .failed("x.c:1: error\nno"), .built([]), .hostChanged,
    ]
    let bytes = sent.flatMap { SourceWatcher.Stream.bytes(of: $0) }
    var stream = SourceWatcher.Stream()
    var received: [SourceWatcher.Message] = []
    for start in stride(from: 0, to: bytes.count, by: size) {
      stream.append(bytes[start..<min(bytes.count, start + size)])
      received += stream.take()
    }
    #expect(received == sent)
  }

  @Test func stampsTellAChange() throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(
      at: directory.appending(path: "below"), withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    func write(_ name: String, _ text: String) throws {
      try Data(text.utf8).write(to: directory.appending(path: name))
    }
    let path = FilePath(directory.path(percentEncoded: false))
    try write("a.c", "a")
    try write("below/b.h", "b")
    let before = SourceWatcher.stamps(of: path)
    #expect(before.map { FilePath($0.name).lastComponent?.string } == ["a.c", "b.h"])
    #expect(SourceWatcher.stamps(of: path) == before)
    try write("below/b.h", "longer")
    #expect(SourceWatcher.stamps(of: path) != before)
    // A hidden file, such as that of an editor, is none of the sources.
    try write("below/b.h", "b")
    try write(".a.c.swp", "")
    #expect(SourceWatcher.stamps(of: path).map(\.name) == before.map(\.name))
    #expect(SourceWatcher.stamps(of: path.appending("none")).isEmpty)
  }
}
