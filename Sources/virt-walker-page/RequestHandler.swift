import NIOCore
import NIOHTTP1
import Pages

/// The requests of one connection, one after the other.
final class RequestHandler: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private let server: PageServer
  private let port: Int
  private var head: HTTPRequestHead?
  private var body = ByteBuffer()
  private var isTooLarge = false
  private var deadline: Scheduled<Void>?

  init(_ server: PageServer, port: Int) {
    self.server = server
    self.port = port
  }

  // MARK: - Time

  /// Closes the connection if the next thing does not happen in time: a request is complete, or an answer is read.
  private func startDeadline(_ context: ChannelHandlerContext) {
    deadline?.cancel()
    let channel = context.channel
    deadline = context.eventLoop.scheduleTask(in: PageServer.patience) {
      channel.close(promise: nil)
    }
  }

  func channelActive(context: ChannelHandlerContext) {
    startDeadline(context)
    context.fireChannelActive()
  }

  func channelInactive(context: ChannelHandlerContext) {
    deadline?.cancel()
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  // MARK: - Requests

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head):
      self.head = head
      body.clear()
      isTooLarge = false
    case .body(var part):
      if body.readableBytes + part.readableBytes > PageServer.mostBytes {
        isTooLarge = true
      } else {
        body.writeBuffer(&part)
      }
    case .end:
      deadline?.cancel()
      if let head { respond(to: head, context) }
    }
  }

  private func respond(to head: HTTPRequestHead, _ context: ChannelHandlerContext) {
    if let refusal = RequestCheck.refusal(of: head, port: port) {
      return send(.init(status: .forbidden, text: "refused: \(refusal)\n"), to: head, context)
    }
    guard !isTooLarge else {
      return send(
        .init(
          status: .payloadTooLarge,
          text: "refused: a request has at most \(PageServer.mostBytes) bytes\n"), to: head, context
      )
    }
    let path = String(head.uri.prefix { $0 != "?" })
    guard let (mayControl, rest) = server.rights(of: path) else {
      return send(
        .init(
          status: .notFound,
          text: "there is no such page: use the address that virt-walkerd page has printed\n"),
        to: head, context)
    }
    let words = rest.split(separator: "/").map(String.init)
    switch (head.method, words.first) {
    case (.GET, nil):
      let text = server.state.html(mayControl: mayControl)
      send(.init(type: "text/html; charset=utf-8", text: text), to: head, context)
    case (.GET, "changes"):
      guard words.count == 3, let epoch = Int(words[1]), let step = Int(words[2]) else {
        return send(.init(status: .notFound, text: "there is no such page\n"), to: head, context)
      }
      sendChanges(sinceEpoch: epoch, step: step, to: head, context)
    case (.POST, "control") where words.count == 1:
      guard mayControl else {
        return send(
          .init(status: .forbidden, text: "refused: this address is only for watching\n"), to: head,
          context)
      }
      perform(to: head, context)
    default:
      send(
        .init(status: .methodNotAllowed, text: "there is no such page or method\n"), to: head,
        context
      )
    }
  }

  private func sendChanges(
    sinceEpoch epoch: Int, step: Int, to head: HTTPRequestHead, _ context: ChannelHandlerContext
  ) {
    let promise = context.eventLoop.makePromise(of: Void.self)
    if let text = server.state.changes(sinceEpoch: epoch, step: step, orWait: promise) {
      promise.succeed()
      return send(.init(type: "application/json", text: text), to: head, context)
    }
    let timeout = context.eventLoop.scheduleTask(in: PageServer.wait) { promise.succeed() }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    let server = server
    promise.futureResult.whenComplete { _ in
      timeout.cancel()
      let (handler, context) = bound.value
      guard context.channel.isActive else { return }
      let text = server.state.changes(sinceEpoch: epoch, step: step, orWait: nil)
      handler.send(
        text.map { .init(type: "application/json", text: $0) } ?? .init(status: .noContent),
        to: head, context)
    }
  }

  private func perform(to head: HTTPRequestHead, _ context: ChannelHandlerContext) {
    let lines = String(buffer: body)
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    server.perform(lines, on: context.eventLoop).whenSuccess { answer in
      let (handler, context) = bound.value
      guard context.channel.isActive else { return }
      handler.send(answer, to: head, context)
    }
  }

  private func send(
    _ answer: PageServer.Answer, to head: HTTPRequestHead, _ context: ChannelHandlerContext
  ) {
    let buffer = context.channel.allocator.buffer(string: answer.text)
    var headers = HTTPHeaders([
      ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"),
      ("Referrer-Policy", "no-referrer"), ("Cross-Origin-Resource-Policy", "same-origin"),
      ("Cross-Origin-Opener-Policy", "same-origin"),
      // The policy of the page itself is in its text.
      ("Content-Security-Policy", "frame-ancestors 'none'"),
    ])
    if answer.status != .noContent {
      headers.add(name: "Content-Type", value: answer.type)
      headers.add(name: "Content-Length", value: "\(buffer.readableBytes)")
    }
    let isKept = head.isKeepAlive && answer.status.code < 400
    if !isKept { headers.add(name: "Connection", value: "close") }
    startDeadline(context)
    context.write(
      wrapOutboundOut(.head(.init(version: head.version, status: answer.status, headers: headers))),
      promise: nil)
    if answer.status != .noContent {
      context.write(wrapOutboundOut(.body(.byteBuffer(buffer))), promise: nil)
    }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
      let (handler, context) = bound.value
      // The answer has gone: the time for the next request begins.
      if isKept { handler.startDeadline(context) } else { context.close(promise: nil) }
    }
  }
}
