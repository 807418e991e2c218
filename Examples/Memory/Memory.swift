// A memory of 64 KiB with positions: lseek(2), pread(2) and pwrite(2) work on a FUSE node.
//
//   swift run memory-device /tmp/memory
//   printf hello | dd of=/tmp/memory bs=1 seek=1000 conv=notrunc
//   dd if=/tmp/memory bs=1 skip=1000 count=5            # hello
import CharacterDeviceServer
import SystemPackage

final class Memory: CharacterDevice {
  /// The state of an open file: its position, for CUSE nodes, whose requests have no position.
  struct Place {
    var position = 0
  }

  private var bytes = [UInt8](repeating: 0, count: 1 << 16)

  /// For `stat(2)` and `SEEK_END` on a FUSE node.
  var size: Int? { bytes.count }

  func open(_ request: consuming OpenRequest<Place>) { request.accept(Place()) }

  func read(_ request: consuming ReadRequest, _ file: OpenFile<Place>) {
    let start = file.hasOffsets ? request.offset : file.handle.position
    let part = bytes.dropFirst(start).prefix(request.count)
    if request.answer(part) { file.handle.position = start + part.count }
  }

  func write(_ request: consuming WriteRequest, _ new: Span<UInt8>, _ file: OpenFile<Place>) {
    let start = file.hasOffsets ? request.offset : file.handle.position
    let taken = min(new.count, bytes.count - start)
    guard taken > 0 else { return request.fail(.noSpace) }
    for index in 0..<taken { bytes[start + index] = new[index] }
    file.handle.position = start + taken
    request.answer(taken: taken)
  }
}

@main
struct Main {
  static func main() { DeviceProgram.run(Memory(), name: "memory-device") }
}
