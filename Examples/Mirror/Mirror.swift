// A character device of your own in one file: a read gives the bytes of the last write in reverse order.
//
//   swift run mirror /tmp/mirror                        # Ctrl-C ends it
//   echo -n hello > /tmp/mirror; cat /tmp/mirror        # olleh, in another terminal
import CharacterDeviceServer
import SystemPackage

final class Mirror: CharacterDevice {
  /// The state of an open file: each has its own position in the text.
  struct Reader {
    var position = 0
  }

  private var bytes: [UInt8] = []

  func open(_ request: consuming OpenRequest<Reader>) { request.accept(Reader()) }

  func read(_ request: consuming ReadRequest, _ file: OpenFile<Reader>) {
    let part = bytes.dropFirst(file.handle.position).prefix(request.count)
    if request.answer(part) { file.handle.position += part.count }
  }

  func write(_ request: consuming WriteRequest, _ new: Span<UInt8>, _ file: OpenFile<Reader>) {
    guard new[0] != UInt8(ascii: "!") else { return request.fail(.invalidArgument) }
    bytes = new.indices.reversed().map { new[$0] }
    file.handle.position = 0
    request.answer(taken: new.count)
  }
}

@main
struct Main {
  static func main() { DeviceProgram.run(Mirror(), name: "mirror") }
}
