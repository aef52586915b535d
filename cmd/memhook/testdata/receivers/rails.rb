# What Rails does around the controller: an application in one file. Arguments: the controller's file and a port.
require "rails"
require "active_record/railtie"
require "active_job/railtie"
require "action_controller/railtie"
require "puma"

$stdout.sync = true
ENV["DATABASE_URL"] = "sqlite3:#{Dir.pwd}/receiver.sqlite3?timeout=10000&pool=20"

class Host < Rails::Application
  config.root = Dir.pwd
  config.eager_load = false
  config.hosts.clear
  config.logger = Logger.new($stderr)
  config.log_level = :warn
  config.secret_key_base = "of this test alone"
end
Host.initialize!
Host.routes.draw { post "/hooks", to: "hooks#receive" }

class ReceivedWebhook < ActiveRecord::Base
end

class WebhookJob < ActiveJob::Base
  def perform(_id, event)
    $stdout.write("working on #{event.to_json}\n")
  end
end

ActiveRecord::Schema.verbose = false
ActiveRecord::Schema.define do
  create_table(:received_webhooks, if_not_exists: true) { |t| t.string :webhook_id, null: false, index: { unique: true, if_not_exists: true } }
end
load ARGV[0]
server = Puma::Server.new(Host)
server.add_tcp_listener("127.0.0.1", Integer(ARGV[1]))
server.run.join
